# SPDX-License-Identifier: Apache-2.0
"""What the shop sells: a few hundred items in shelves of things that the same people like."""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import product
from typing import Any

ITEMS_PER_SHELF = 12
SHOP_URL = "https://shop.example.com"


@dataclass(frozen=True, slots=True)
class Item:
    """One thing on sale."""

    item_id: str
    title: str
    categories: tuple[str, ...]
    price: int
    shelf: int
    """Items of one shelf appeal to the same people."""

    @property
    def url(self) -> str:
        """Page of the item."""
        return f"{SHOP_URL}/items/{self.item_id}"

    def as_json(self) -> dict[str, Any]:
        """The item as the catalogue's API takes it."""
        return {
            "itemId": self.item_id,
            "title": self.title,
            "categories": list(self.categories),
            "price": self.price,
            "currency": "KRW",
            "url": self.url,
        }

    def as_product(self, quantity: int = 1) -> dict[str, Any]:
        """The item as the product of an e-commerce event."""
        return {
            "product_id": self.item_id,
            "sku": self.item_id,
            "name": self.title,
            "category": self.categories[-1],
            "price": self.price,
            "quantity": quantity,
            "currency": "KRW",
        }


@dataclass(frozen=True, slots=True)
class Shelf:
    """What the items of one shelf are made from."""

    categories: tuple[str, ...]
    prices: tuple[int, int]
    makes: tuple[str, ...]
    things: tuple[str, ...]


SHELVES = (
    Shelf(
        ("식품", "과일"),
        (9_900, 45_000),
        ("제주", "나주", "청송", "성주"),
        ("감귤 5kg", "배 선물세트", "꿀사과 3kg", "참외 2kg", "샤인머스캣 2송이", "한라봉 3kg"),
    ),
    Shelf(
        ("식품", "간편식"),
        (3_900, 18_000),
        ("집밥연구소", "바로한끼", "할매손맛"),
        ("김치찌개 밀키트", "소불고기 전골", "순두부찌개", "매콤 닭갈비", "곤드레나물밥", "떡볶이 2인분"),
    ),
    Shelf(
        ("식품", "커피"),
        (6_900, 32_000),
        ("Fritz", "모모로스터스", "Seoul Roasters", "테라커피"),
        ("에티오피아 원두 500g", "Cold Brew 1L", "디카페인 드립백 20입", "캡슐커피 50개", "House Blend 1kg"),
    ),
    Shelf(
        ("식품", "건강식품"),
        (12_000, 69_000),
        ("정관원", "데일리밸런스", "Nutri+"),
        ("홍삼 스틱 30포", "유산균 60캡슐", "Omega-3 90정", "비타민C 1000", "콜라겐 젤리", "단백질 쉐이크"),
    ),
    Shelf(
        ("패션", "여성의류"),
        (19_900, 159_000),
        ("무드앤", "Atelier Han", "소풍", "Lune"),
        ("린넨 원피스", "캐시미어 가디건", "와이드 슬랙스", "트위드 재킷", "플리츠 스커트"),
    ),
    Shelf(
        ("패션", "남성의류"),
        (15_900, 189_000),
        ("스탠다드룸", "Hanok Works", "브로드컷"),
        ("옥스포드 셔츠", "코튼 치노 팬츠", "경량 패딩", "니트 폴로", "울 코트", "Denim Jacket"),
    ),
    Shelf(
        ("패션", "운동화"),
        (39_000, 199_000),
        ("러너즈", "Northpeak", "스트릿온"),
        ("러닝화", "워킹화", "트레일화", "코트 스니커즈", "슬립온", "농구화"),
    ),
    Shelf(
        ("뷰티", "스킨케어"),
        (8_900, 78_000),
        ("자연결", "닥터수", "Dew Lab", "온더페이스"),
        ("수분 크림", "비타민 세럼", "시카 토너", "선크림 SPF50+", "쌀겨 클렌징폼"),
    ),
    Shelf(
        ("뷰티", "메이크업"),
        (6_900, 42_000),
        ("로즈빈", "Velvet Seoul", "컬러팝콘"),
        ("벨벳 립틴트", "쿠션 파운데이션", "아이섀도 팔레트", "마스카라", "치크 블러셔", "브로우 펜슬"),
    ),
    Shelf(
        ("디지털", "음향기기"),
        (19_000, 389_000),
        ("사운드온", "Auralis", "노이즈제로"),
        ("무선 이어폰", "노이즈캔슬링 헤드폰", "블루투스 스피커", "게이밍 헤드셋", "사운드바", "LP 턴테이블"),
    ),
    Shelf(
        ("디지털", "컴퓨터"),
        (12_900, 459_000),
        ("Keyline", "한컴픽", "픽셀뷰"),
        ("기계식 키보드", "무선 마우스", "27인치 모니터", "USB-C 허브", "노트북 거치대", "외장 SSD 1TB"),
    ),
    Shelf(
        ("디지털", "스마트홈"),
        (14_900, 329_000),
        ("홈비", "Nuri Home", "라이트온"),
        ("공기청정기", "로봇청소기", "스마트 전구", "홈캠", "가습기", "Smart Plug 4-pack"),
    ),
    Shelf(
        ("리빙", "주방"),
        (7_900, 129_000),
        ("담다키친", "Onggi", "쿡스토리"),
        ("무쇠 프라이팬", "도자기 그릇세트", "에어프라이어", "텀블러 500ml", "원목 도마", "보온 도시락"),
    ),
    Shelf(
        ("리빙", "침구"),
        (12_900, 189_000),
        ("포근", "Cotton Night", "꿀잠연구소"),
        ("차렵이불", "메모리폼 베개", "냉감 패드", "극세사 담요", "암막 커튼", "라텍스 토퍼"),
    ),
    Shelf(
        ("리빙", "홈데코"),
        (4_900, 89_000),
        ("오후네시", "Studio Dal", "초록방"),
        ("무드등", "디퓨저", "몬스테라 화분", "벽시계", "러그", "캔들 세트"),
    ),
    Shelf(
        ("스포츠", "캠핑"),
        (9_900, 299_000),
        ("산너머", "Camp Blue", "별밤"),
        ("원터치 텐트", "캠핑 의자", "화로대", "침낭", "LED 랜턴", "아이스박스 35L"),
    ),
    Shelf(
        ("스포츠", "홈트레이닝"),
        (5_900, 149_000),
        ("핏데이", "Core Lab", "근육공방"),
        ("요가매트", "덤벨 세트", "폼롤러", "풀업바", "저항 밴드", "실내 자전거"),
    ),
    Shelf(
        ("유아동", "육아용품"),
        (6_900, 259_000),
        ("아기별", "Mom & Bebe", "도담도담"),
        ("기저귀 4팩", "아기 물티슈 10팩", "이유식 용기", "유모차", "아기띠", "젖병 세트"),
    ),
    Shelf(
        ("유아동", "장난감"),
        (5_900, 99_000),
        ("뚝딱", "Playground", "꼬마박사"),
        ("원목 블록", "공룡 피규어", "역할놀이 주방", "자석 칠판", "퍼즐 100조각", "RC 자동차"),
    ),
    Shelf(
        ("반려동물", "강아지"),
        (4_900, 89_000),
        ("멍멍상회", "Paw Seoul", "댕댕이네"),
        ("닭가슴살 간식", "연어 사료 2kg", "노즈워크 매트", "하네스", "배변패드 100매", "덴탈껌"),
    ),
    Shelf(
        ("반려동물", "고양이"),
        (3_900, 79_000),
        ("야옹가게", "Meow House", "냥이네"),
        ("츄르 20개입", "캣타워", "두부모래 7L", "스크래처", "낚싯대 장난감", "습식캔 12개"),
    ),
    Shelf(
        ("도서", "소설"),
        (11_000, 19_800),
        ("한강변의", "새벽 세 시의", "오래된"),
        ("서점", "편의점 이야기", "약속", "기차역", "고양이", "바다"),
    ),
    Shelf(
        ("도서", "IT"),
        (22_000, 48_000),
        ("실전", "처음 배우는", "Practical"),
        ("Python 데이터 분석", "Kubernetes 운영", "SQL 튜닝", "머신러닝", "웹 개발", "클라우드 설계"),
    ),
    Shelf(
        ("문구", "다이어리"),
        (2_900, 38_000),
        ("달빛문구", "Paper Moon", "기록상점"),
        ("만년 다이어리", "젤펜 10색", "마스킹테이프 세트", "가죽 필통", "만년필", "독서 노트"),
    ),
)


def make_items(seed: int) -> tuple[Item, ...]:
    """Stock every shelf; the same seed stocks the same items."""
    chance = random.Random(f"{seed}:catalogue")
    items: list[Item] = []
    for number, shelf in enumerate(SHELVES):
        titles = [f"{make} {thing}" for make, thing in product(shelf.makes, shelf.things)]
        for title in chance.sample(titles, ITEMS_PER_SHELF):
            price = chance.randrange(shelf.prices[0], shelf.prices[1] + 1) // 100 * 100
            items.append(Item(f"sku-{1001 + len(items)}", title, shelf.categories, price, number))
    return tuple(items)
