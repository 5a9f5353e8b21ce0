# SPDX-License-Identifier: Apache-2.0
"""What a segment is: the rule language, and what is remembered of a customer's behaviour."""
