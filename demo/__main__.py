# SPDX-License-Identifier: Apache-2.0
"""`python -m demo`: fill a running platform and show what it knows."""

from __future__ import annotations

import os
import sys

from demo.api import Api, ApiError
from demo.importers.rows import BadDataset
from demo.options import Options, read_options
from demo.sender import SendFailed
from demo.simulation import simulate
from demo.transfer import transfer
from demo.waiting import NotSettled

READY_SECONDS = 30
INTERRUPTED = 130


def main() -> int:
    """Run the demo; returns the exit code."""
    options = read_options(sys.argv[1:], os.environ)
    api = Api(options.url, options.secret_key)
    try:
        _run(api, options)
    except (ApiError, BadDataset, SendFailed, NotSettled) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped; running it again goes on where nothing is lost or counted twice", file=sys.stderr)
        return INTERRUPTED
    finally:
        api.close()
    return 0


def _run(api: Api, options: Options) -> None:
    api.wait_until_ready(READY_SECONDS)
    if options.dataset and options.path:
        transfer(api, options, options.dataset, options.path)
    else:
        simulate(api, options)


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # The Segment client's exit hook waits for its thread, also for events that nobody wants any more.
    os._exit(code)
