# SPDX-License-Identifier: Apache-2.0
"""Why an item is recommended, for people to read.

The Korean sentences put 상품 behind the title, so that no particle depends on the title's last sound.
"""

from enum import Enum


class ReasonType(Enum):
    """Kinds of reasons; English and Korean sentence, `{title}` is the title of the item that led to it."""

    VIEWED = ("Because you viewed {title}", "{title} 상품을 보셔서 추천해요")
    BOUGHT = ("Because you bought {title}", "{title} 상품을 구매하셔서 추천해요")
    POPULAR = ("Popular these days", "요즘 많은 고객님이 찾는 상품이에요")

    def text(self, title: str) -> str:
        """Say it in English."""
        return self.value[0].replace("{title}", title)

    def text_ko(self, title: str) -> str:
        """Say it in Korean."""
        return self.value[1].replace("{title}", title)
