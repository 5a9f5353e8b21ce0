# SPDX-License-Identifier: Apache-2.0
"""The platform as data, and the variables that change it."""

from __future__ import annotations

import pytest

from deploy.local.programs import free_port_variables, platform
from deploy.local.settings import LocalSettings


def test_every_process_has_its_documented_port() -> None:
    """Others rely on these numbers."""
    ports = {program.name: (program.port, program.prometheus_port) for program in platform({})}
    assert ports == {
        "profile": (9101, 9201),
        "segmentation": (9102, 9202),
        "recommend": (9103, 9203),
        "feedback": (9104, 9204),
        "metrics": (9105, 9205),
        "gateway": (8080, 9200),
    }


def test_a_variable_moves_each_port() -> None:
    """A whole second platform fits beside the first."""
    variables = free_port_variables()
    assert len(set(variables.values())) == len(variables) == 14
    wanted = {program.setting: str(program.port) for program in platform(variables)}
    wanted |= {program.prometheus_setting: str(program.prometheus_port) for program in platform(variables)}
    settings = LocalSettings.from_environment(variables)
    wanted |= {"DANGOL_POSTGRES_PORT": str(settings.postgres_port), "DANGOL_NATS_PORT": str(settings.nats_port)}
    assert wanted == variables


@pytest.mark.parametrize("text", ["http", "0", "70000", "-1"])
def test_a_port_that_is_none_is_named(text: str) -> None:
    """With the variable that holds it."""
    with pytest.raises(ValueError, match=f"DANGOL_GATEWAY_PORT must be a port number, not '{text}'"):
        platform({"DANGOL_GATEWAY_PORT": text})


def test_empty_variables_count_as_unset() -> None:
    """As a shell or a compose file passes them."""
    settings = LocalSettings.from_environment({"DANGOL_HOME": "", "DANGOL_POSTGRES_URL": ""})
    assert (str(settings.home), settings.postgres_url) == (".dangol", None)
