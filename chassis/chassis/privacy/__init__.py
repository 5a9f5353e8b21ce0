# SPDX-License-Identifier: Apache-2.0
"""What every service does for data subjects: declare what is personal, and erase, export and search it."""

from chassis.privacy.personal import Erased, Kept, PersonalStore, Traces
from chassis.privacy.tables import PersonalTable, PersonalTables

__all__ = ["Erased", "Kept", "PersonalStore", "PersonalTable", "PersonalTables", "Traces"]
