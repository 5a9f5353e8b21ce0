# SPDX-License-Identifier: Apache-2.0
"""How long events are kept: rules that svc-profile announces, and that every service enforces on what it keeps."""

from chassis.retention.rules import CONCERNED, Due, RetentionRule, RetentionStore

__all__ = ["CONCERNED", "Due", "RetentionRule", "RetentionStore"]
