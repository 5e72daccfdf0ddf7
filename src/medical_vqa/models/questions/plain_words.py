"""Words with which one asks whether something is so, or is in the picture, without saying anything more.

What a question names besides them says what it is about: nothing but ``CT`` in ``Could you tell me whether this is a CT
scan?``, and ``tumor`` too in ``Does the CT show a tumor?``. Words that narrow or deny (``only``, ``not``) are none.
"""

from __future__ import annotations

import re

from rapidfuzz.distance import OSA

_ENGLISH = """
a an the this that these those it its he she they there here i you we one me us my our is are was were be been being
am do does did has have had having can could will would may might should shall got get of in on at by with from via
through using along for to as about within inside out image images imaging picture pictures scan scans slice slices
section sections photo photos photograph photographs film films figure figures study studies view views examination
examinations exam exams cut plane planes field modality technique technology method sequence weighting weighted type
kind sort machine scanner orientation example taken take made make acquired acquire obtained obtain produced produce
created captured generated done performed recorded shot scanned scanning imaged used use come comes came show shows
shown showing depict depicts depicted display displayed displays see seen look looks looking like appear appears seem
seems represent represents belong belongs visible visualized visualised observed observe present exist exists contain
contains include includes included located situated find found identify identified detect detected any some part parts
region regions area body anatomical patient patients person human organ organs s please kindly tell know say think
believe guess suppose suspect confirm check decide determine verify if whether correct true really actually truly
indeed exactly just simply simple probably likely maybe perhaps certain sure certainly definitely hi hello hey dear
doctor dr sir madam ok okay well so then now yes want like question quick medical diagnostic radiology following given
above
"""
_CHINESE = """
请问 请 告诉 我 你 您 他 她 这 那 该 此 本 它 张 幅 个 份 种 是不是 是否 是 否 为 属于 的 了 吗 么 嘛 呢 吧 啊 呀 一
图片 图像 影像 照片 片子 片 图 画 扫描 拍摄 拍 检查 成像 切片 切面 平面 断面 通过 用 由 使用 采用 利用 方式 方法
技术 模态 加权 做 来 进行 得到 获得 生成 获取 里面 里 中 在 上 内 以 能否 能不能 能够 能 可不可以 可以 可 看到 看见
看得到 看 见 显示 展示 出现 观察到 观察 存在 有没有 有 包含 包括 含有 含 关于 来自 身体 部位 部分 区域 位置 器官 人
病人 患者 觉得 认为 确认 可能 应该 真 对 正确 一下 医生 你好 想知道 类型 于 到
"""
PLAIN_WORDS = frozenset(_ENGLISH.split())
_CHINESE_WORDS = re.compile("|".join(sorted(_CHINESE.split(), key=len, reverse=True)))
_WORD = re.compile(r"[a-z0-9]+|[^\W\d_a-z]", re.IGNORECASE)
_TAG = re.compile(
    r"(?:[,\s]\s*(?:or not|(?:is|are|was|does|do|has)n['\u2019]?t (?:it|this|that|they|there|he|she))"
    r"|,\s*(?:right|correct|yes|no)|[,\uff0c]\s*(?:对吗|对吧|对不对|是吗|是吧|是不是))\W*$"
)
"""What follows a statement so that it asks."""
_LONG_WORD_LETTERS = 7
"""From this length on, a word with one typing error is taken for the plain one; shorter ones with swapped letters."""


def rest_of(text: str, also_plain: frozenset[str] = frozenset()) -> list[str]:
    """The words of a text that are not plain; in Chinese the characters.

    Args:
        text: In lower case.
        also_plain: More English words that are taken for plain.
    """
    text = _CHINESE_WORDS.sub(" ", without_tag(text))
    return [word for word in _WORD.findall(text) if word not in also_plain and not _is_plain(word)]


def without_tag(text: str) -> str:
    """A text without the words at its end that make a question of a statement (``, right?``)."""
    return _TAG.sub("", text)


def statement_of(question: str) -> str:
    """A question in lower case with single spaces, without a tag (`without_tag`)."""
    return re.sub(r"\s+", " ", without_tag(question.lower())).strip()


def _is_plain(word: str) -> bool:
    if word in PLAIN_WORDS:
        return True
    if len(word) >= _LONG_WORD_LETTERS:
        return any(OSA.distance(word, other, score_cutoff=1) <= 1 for other in PLAIN_WORDS)
    return any(
        len(other) == len(word) > 3 and sorted(other) == sorted(word) and OSA.distance(word, other) == 1
        for other in PLAIN_WORDS
    )
