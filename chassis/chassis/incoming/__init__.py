# SPDX-License-Identifier: Apache-2.0
"""How what clients send is read, leniently and the same in the gateway and in imports."""
