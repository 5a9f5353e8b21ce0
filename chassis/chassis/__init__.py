# SPDX-License-Identifier: Apache-2.0
"""The runtime that every service shares."""

import os

# Children of our processes are programs of their own. Without this, gRPC prepares for a fork of itself each time one is
# started, and says on the standard error output that it could not.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")
