# SPDX-License-Identifier: Apache-2.0
"""What a piece of feedback says: its language, its sentiment, and the words that decided."""
