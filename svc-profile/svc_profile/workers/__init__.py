# SPDX-License-Identifier: Apache-2.0
"""Loops of the service that are neither called nor told: they look for work and do it, one piece after the other."""
