# SPDX-License-Identifier: Apache-2.0
"""Python's cyclic garbage collector, set for processes that handle batches."""

import gc


def collect_less() -> None:
    """Leave what start-up made out of every collection, and collect less often.

    A batch makes tens of thousands of objects that die with it and hold no cycle. With the default thresholds, looking
    through them (and, every so often, through everything that was ever imported) cost a quarter of a consumer's time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
