# SPDX-License-Identifier: Apache-2.0
"""What customers say, in Korean and English."""

from __future__ import annotations

import random
from typing import Literal

Mood = Literal["good", "mixed", "bad"]

RATINGS: dict[Mood, tuple[int, ...]] = {"good": (5, 5, 5, 4), "mixed": (3, 3, 4, 2), "bad": (1, 1, 2)}
SCORES: dict[Mood, tuple[int, ...]] = {"good": (9, 10, 10), "mixed": (7, 8, 6), "bad": (0, 2, 4, 5)}
ENGLISH_SHARE = 0.2

REVIEWS: dict[Mood, tuple[str, ...]] = {
    "good": (
        "{thing} 정말 마음에 들어요. 배송도 하루 만에 왔습니다!",
        "기대 이상이에요. {thing} 재구매 의사 100%입니다.",
        "포장이 꼼꼼하고 {thing} 품질이 아주 좋네요. 추천합니다.",
        "가격 대비 최고예요. 가족들이 다 좋아합니다.",
        "색상도 예쁘고 마감도 깔끔해서 만족합니다 ㅎㅎ",
        "선물로 보냈는데 받으신 분이 너무 좋아하셨어요.",
    ),
    "mixed": (
        "{thing} 그냥 무난합니다. 가격 생각하면 보통이에요.",
        "제품은 괜찮은데 배송이 조금 늦었어요.",
        "사진이랑 색이 약간 다르지만 쓸 만합니다.",
        "아직 며칠 안 써봐서 잘 모르겠어요.",
    ),
    "bad": (
        "{thing} 받자마자 고장 났습니다. 너무 실망이에요.",
        "배송이 일주일이나 걸렸고 상자가 다 찌그러져서 왔어요.",
        "환불 요청했는데 고객센터가 답이 없네요. 최악입니다.",
        "광고랑 완전히 다릅니다. 돈이 아까워요.",
        "냄새가 심해서 도저히 못 쓰겠어요. 비추천합니다.",
    ),
}
ENGLISH_REVIEWS: dict[Mood, tuple[str, ...]] = {
    "good": (
        "Absolutely love it, arrived the next day and the quality is excellent.",
        "Great value for money. I will definitely order again!",
        "Beautiful packaging and it works perfectly.",
    ),
    "mixed": ("It is okay, nothing special.", "Works as described, but delivery took a little longer than promised."),
    "bad": (
        "Broke after two days. Very disappointed.",
        "Terrible customer service, nobody answers and I still wait for my refund.",
    ),
}
ANSWERS: dict[Mood, tuple[str, ...]] = {
    "good": ("앱이 편하고 배송이 빨라서 자주 이용해요.", "친구들한테도 추천했어요. 추천 상품이 제 취향이에요!"),
    "mixed": ("전반적으로 괜찮지만 쿠폰이 좀 더 많았으면 좋겠어요.", "보통이에요."),
    "bad": ("결제 오류가 자꾸 나서 짜증나요.", "배송 조회가 안 되고 문의해도 답변이 너무 느립니다."),
}


def choose_mood(chance: random.Random) -> Mood:
    """Most customers are content."""
    moods: tuple[Mood, ...] = ("good", "mixed", "bad")
    return chance.choices(moods, (66, 18, 16))[0]


def write_review(chance: random.Random, mood: Mood, title: str) -> str:
    """Write a review of an item."""
    if chance.random() < ENGLISH_SHARE:
        return chance.choice(ENGLISH_REVIEWS[mood])
    return chance.choice(REVIEWS[mood]).format(thing=title)


def write_answer(chance: random.Random, mood: Mood) -> str:
    """Write the free text of an answer to "how likely are you to recommend us"; often there is none."""
    return "" if chance.random() < 0.3 else chance.choice(ANSWERS[mood])
