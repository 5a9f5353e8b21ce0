# SPDX-License-Identifier: Apache-2.0
"""What svc-profile does, one module for each thing it is about."""
