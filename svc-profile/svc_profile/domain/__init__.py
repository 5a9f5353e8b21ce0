# SPDX-License-Identifier: Apache-2.0
"""Who a customer is: the rules, without any engine."""
