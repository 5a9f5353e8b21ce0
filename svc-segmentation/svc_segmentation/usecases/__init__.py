# SPDX-License-Identifier: Apache-2.0
"""What svc-segmentation does: remember behaviour, keep segments, say who belongs."""
