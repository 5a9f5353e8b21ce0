# SPDX-License-Identifier: Apache-2.0
"""Files in and out: hand-written, because HTTP itself dictates the shape of what streams."""
