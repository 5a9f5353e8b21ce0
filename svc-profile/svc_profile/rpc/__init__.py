# SPDX-License-Identifier: Apache-2.0
"""What svc-profile answers, one module for each proto service."""
