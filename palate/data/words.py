"""What the names of columns, tables and events usually mean, in several languages.

A name is cut into words (``CustomerID`` is customer, id); a word counts if it equals a known one,
or begins or ends with one of four letters or more (``kundennr``). Chinese words count anywhere.
"""

from __future__ import annotations

import re
import unicodedata

ROLES: dict[str, tuple[str, ...]] = {
    "user": (
        *("user", "uid", "customer", "client", "member", "visitor", "person", "buyer", "reader", "viewer"),
        *("listener", "shopper", "account", "household", "subscriber", "patron", "reviewer"),
        *("kunde", "kunden", "nutzer", "benutzer", "käufer", "mitglied", "leser"),
        *("utilisateur", "acheteur", "membre", "lecteur", "cliente", "usuario", "comprador", "miembro"),
        *("utente", "usuário", "用户", "用戶", "会员", "會員", "买家", "顾客", "客户", "读者"),
    ),
    "item": (
        *("item", "iid", "product", "sku", "article", "movie", "film", "song", "track", "book", "isbn"),
        *("video", "goods", "stock", "asin", "content", "game", "recipe", "wine", "listing", "news"),
        *("artist", "album", "photo", "course", "hotel", "restaurant", "business"),
        *("artikel", "produkt", "ware", "buch", "lied", "produit", "livre", "chanson", "oeuvre"),
        *(
            "producto",
            "artículo",
            "articulo",
            "libro",
            "película",
            "pelicula",
            "canción",
            "prodotto",
            "produto",
        ),
        *("商品", "物品", "产品", "產品", "货品", "宝贝", "电影", "歌曲", "视频", "图书", "文章"),
    ),
    "time": (
        *("time", "timestamp", "ts", "date", "datetime", "when", "day", "created", "unixtime", "epoch"),
        *("zeit", "datum", "zeitpunkt", "zeitstempel", "heure", "temps", "jour", "horodatage"),
        *("fecha", "hora", "tiempo", "data", "时间", "時間", "日期", "时刻"),
    ),
    "order": (
        "order",
        "sequence",
        "seq",
        "position",
        "step",
        "reihenfolge",
        "ordre",
        "orden",
        "顺序",
        "序号",
    ),
    "event": (
        *("event", "action", "behavior", "behaviour", "activity", "interaction", "type", "feedback"),
        *("ereignis", "aktion", "verhalten", "vorgang", "événement", "evenement", "comportement"),
        *("evento", "acción", "accion", "comportamiento", "tipo", "行为", "行為", "事件", "动作", "操作"),
    ),
    "rating": (
        *("rating", "score", "stars", "overall", "bewertung", "note", "sterne", "évaluation", "evaluation"),
        *(
            "valoración",
            "valoracion",
            "puntuación",
            "puntuacion",
            "calificación",
            "nota",
            "评分",
            "打分",
            "星级",
        ),
    ),
    "amount": (
        *("quantity", "qty", "amount", "count", "units", "plays", "playcount", "weight", "value", "watched"),
        *(
            "menge",
            "anzahl",
            "stückzahl",
            "quantité",
            "quantite",
            "nombre",
            "cantidad",
            "数量",
            "次数",
            "件数",
        ),
    ),
    "text": (
        *("title", "name", "description", "headline", "summary", "abstract", "text", "label"),
        *("titel", "bezeichnung", "beschreibung", "titre", "nom", "libellé", "libelle", "désignation"),
        *(
            "título",
            "titulo",
            "descripción",
            "descripcion",
            "标题",
            "標題",
            "名称",
            "名稱",
            "描述",
            "品名",
            "简介",
        ),
    ),
    "category": (
        *("category", "categories", "genre", "genres", "type", "brand", "color", "colour", "class", "tags"),
        *(
            "department",
            "kategorie",
            "marke",
            "farbe",
            "gruppe",
            "catégorie",
            "categorie",
            "marque",
            "couleur",
        ),
        *(
            "categoría",
            "categoria",
            "género",
            "genero",
            "marca",
            "类别",
            "類別",
            "分类",
            "品牌",
            "类目",
            "类型",
        ),
    ),
    "receipt": (
        *(
            "invoice",
            "order",
            "transaction",
            "row",
            "index",
            "session",
            "receipt",
            "basket",
            "bill",
            "unnamed",
        ),
        *("rechnung", "beleg", "bestellung", "auftrag", "zeile", "sitzung", "facture", "commande", "ligne"),
        *("pedido", "factura", "fila", "sesión", "订单", "流水", "发票", "会话", "rating", "event", "review"),
    ),
}
"""The words of each role; those of ``receipt`` number rows or visits, and name neither people nor items."""

IDENTIFIER = frozenset(
    (
        *("id", "ids", "key", "keys", "no", "nr", "num", "number", "code", "hash", "uuid", "index", "idx"),
        *("identifier", "nummer", "numéro", "numero", "código", "codigo", "编号", "号"),
    )
)
"""What may stand beside a role's word without changing its meaning."""

TABLES: dict[str, tuple[str, ...]] = {
    "interactions": (
        *("interactions", "events", "ratings", "orders", "transactions", "clicks", "views", "purchases"),
        *("sales", "reviews", "plays", "log", "logs", "behavior", "history", "ereignisse", "bestellungen"),
        *(
            "käufe",
            "verkäufe",
            "achats",
            "ventes",
            "commandes",
            "compras",
            "ventas",
            "pedidos",
            "行为",
            "日志",
            "订单",
        ),
    ),
    "items": ROLES["item"],
    "users": ROLES["user"],
}

EVENTS: dict[str, tuple[str, ...]] = {
    "view": (
        "view",
        "views",
        "pv",
        "click",
        "clk",
        "browse",
        "read",
        "page_view",
        "ansicht",
        "vue",
        "浏览",
        "点击",
    ),
    "favourite": ("fav", "favorite", "favourite", "wishlist", "merken", "favori", "favorito", "收藏"),
    "cart": (
        "cart",
        "addtocart",
        "add_to_cart",
        "basket",
        "warenkorb",
        "panier",
        "carrito",
        "加购",
        "加购物车",
    ),
    "purchase": (
        "buy",
        "purchase",
        "order",
        "transaction",
        "bought",
        "kauf",
        "achat",
        "compra",
        "购买",
        "下单",
    ),
    "like": ("like", "upvote", "喜欢", "点赞"),
    "dislike": ("dislike", "downvote"),
    "play": ("play", "listen", "watch", "播放"),
    "skip": ("skip",),
    "share": ("share", "repost", "分享", "转发"),
    "comment": ("comment", "comment created", "评论"),
    "follow": ("follow", "关注"),
    "bookmark": ("bookmark",),
    "rating": ("rating", "rate", "review"),
    "return": ("return", "refund", "cancel", "retoure", "退货"),
}
"""Event types by our name, and what strangers call them."""


def words_of(name: str) -> list[str]:
    """The words of a name, in small letters.

    >>> words_of("CustomerID"), words_of("add_to-cart")
    (['customer', 'id'], ['add', 'to', 'cart'])
    """
    plain = unicodedata.normalize("NFC", name)
    plain = re.sub(r"(?<=[a-zß-ÿ0-9])(?=[A-ZÀ-Þ])|(?<=[A-Z])(?=[A-Z][a-z])", " ", plain)
    return [word for word in re.split(r"[\W_]+", plain.lower()) if word]


def means(name: str, role: str, vocabulary: dict[str, tuple[str, ...]] = ROLES) -> int:
    """2 where a name says the role and nothing else (``user_id``), 1 where also more, 0 where not."""
    known = vocabulary[role]
    words = words_of(name)
    hits = [word for word in words if _matches(word, known)]
    if not hits:
        return 0
    rest = [word for word in words if word not in hits and word not in IDENTIFIER]
    return 1 if rest else 2


def event_name(text: str) -> str | None:
    """Our name of an event type, or None where the text is none of the usual ones."""
    plain = text.strip().lower()
    return next((name for name, known in EVENTS.items() if plain in known), None)


def _matches(word: str, known: tuple[str, ...]) -> bool:
    for entry in known:
        if word == entry or (not entry.isascii() and entry[0] >= "\u4e00" and entry in word):
            return True
        if len(entry) >= 4 and (word.startswith(entry) or word.endswith(entry)):
            return True
    return False
