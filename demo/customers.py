# SPDX-License-Identifier: Apache-2.0
"""Who visits the shop: people with names, devices and tastes."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from demo.catalogue import SHELVES, Item

SURNAMES = {
    "김": "kim", "이": "lee", "박": "park", "최": "choi", "정": "jung", "강": "kang", "조": "cho", "윤": "yoon",
    "장": "jang", "임": "lim", "한": "han", "오": "oh", "서": "seo", "신": "shin", "권": "kwon", "황": "hwang",
}  # fmt: skip
GIVEN_NAMES = {
    "민준": "minjun", "서연": "seoyeon", "도윤": "doyun", "지우": "jiwoo", "하준": "hajun", "서윤": "seoyun",
    "은우": "eunwoo", "하은": "haeun", "지호": "jiho", "수아": "sua", "준서": "junseo", "지안": "jian",
    "현우": "hyunwoo", "채원": "chaewon", "영호": "youngho", "미경": "mikyung", "성민": "sungmin", "유진": "yujin",
    "태양": "taeyang", "다은": "daeun", "재현": "jaehyun", "소희": "sohee", "동현": "donghyun", "예린": "yerin",
}  # fmt: skip
CITIES = {"Seoul": 38, "Busan": 14, "Incheon": 11, "Daegu": 9, "Daejeon": 7, "Gwangju": 6, "Suwon": 6, "Jeju": 3}
MAIL_HOSTS = ("example.com", "example.net", "example.org")
FAVOURITE_SHELVES = 3
FAVOURITE_SHARE = 0.82


@dataclass(frozen=True, slots=True)
class Customer:
    """One person."""

    number: int
    name: str
    email: str
    phone: str
    city: str
    birth_year: int
    gender: str
    visits_a_day: float
    shyness: float
    """Share of visits that end without logging in."""
    thrift: float
    """Share of filled carts that are left behind."""
    favourites: tuple[int, ...]
    """Shelves, best loved first."""
    devices: tuple[str, ...]
    user_id: str

    def traits(self) -> dict[str, Any]:
        """What the shop tells the platform at a login."""
        return {
            "name": self.name,
            "email": self.email,
            "phone": self.phone,
            "city": self.city,
            "birth_year": self.birth_year,
            "gender": self.gender,
            "language": "ko",
        }


def make_customers(seed: int, count: int) -> tuple[Customer, ...]:
    """Make the first `count` people of a seed; more people leave the first ones as they are."""
    return tuple(_customer(seed, number) for number in range(1, count + 1))


def _customer(seed: int, number: int) -> Customer:
    chance = random.Random(f"{seed}:customer:{number}")
    surname, given = chance.choice(list(SURNAMES)), chance.choice(list(GIVEN_NAMES))
    suffix = str(number) if seed == 1 else f"{number}.{seed}"
    mail_name = f"{GIVEN_NAMES[given]}.{SURNAMES[surname]}{suffix}"
    # Multiplying by a prime spreads the numbers and lets no two customers share one.
    phone = (number * 48_271 + seed * 1_000_003) % 10**8
    return Customer(
        number=number,
        name=surname + given,
        email=f"{mail_name}@{chance.choice(MAIL_HOSTS)}",
        phone=f"010-{phone // 10_000:04d}-{phone % 10_000:04d}",
        city=chance.choices(list(CITIES), list(CITIES.values()))[0],
        birth_year=int(chance.triangular(1950, 2008, 1990)),
        gender=chance.choice(("female", "male")),
        visits_a_day=min(1.5, chance.gammavariate(1.1, 0.11) + 0.02),
        shyness=chance.betavariate(2, 3),
        thrift=chance.betavariate(2, 3),
        favourites=tuple(chance.sample(range(len(SHELVES)), FAVOURITE_SHELVES)),
        devices=tuple(f"device-{seed}-{number}-{kind}" for kind in chance.sample(("mobile", "desktop", "tablet"), 2)),
        user_id=f"customer-{number:04d}" if seed == 1 else f"customer-{seed}-{number:04d}",
    )


def pick_item(chance: random.Random, customer: Customer, shelves: list[list[Item]]) -> Item:
    """Let a customer's eye fall on an item: mostly a favourite shelf, and there mostly the front of it."""
    if chance.random() < FAVOURITE_SHARE:
        shelf = shelves[chance.choices(customer.favourites, (5, 3, 2))[0]]
    else:
        shelf = chance.choice(shelves)
    return shelf[min(int(chance.expovariate(0.28)), len(shelf) - 1)]
