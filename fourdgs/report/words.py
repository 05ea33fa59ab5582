"""The fixed words of a report, in English and in Russian. What notebooks compute and say stays as it is."""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import InputError
from .blocks import outside_code

WORDS: dict[str, dict[str, str]] = {
    "en": {
        "contents": "Contents",
        "code": "code",
        "parameters": "parameters",
        "parameter": "parameter",
        "value": "value",
        "changed": "* differs from the notebook's default",
        "figure": "Figure",
        "table": "table",
        "swipe": "swipe sideways",
        "wipe": "Divider between {left} on the left and {right} on the right",
        "video": "The video as a file",
        "scene": "3D view: turn it with the mouse, it plays in time ({size} MB)",
        "scene_alone": "on a page of its own",
        "made": "Made by fourdgs {version}{commit} on {cores} cores of {processor}, {gpus}; "
        "Python {python}, PyTorch {torch}; inputs sha256 {inputs}.",
        "commit": ", commit {commit}",
        "modified": " (modified)",
        "processor": "an unnamed processor",
        "no_gpu": "no GPU",
        "absent": "absent",
    },
    "ru": {
        "contents": "Содержание",
        "code": "код",
        "parameters": "параметры",
        "parameter": "параметр",
        "value": "значение",
        "changed": "* отличается от значения по умолчанию в блокноте",
        "figure": "Рис.",
        "table": "таблица",
        "swipe": "листайте вбок",
        "wipe": "Граница: слева {left}, справа {right}",
        "video": "Видео отдельным файлом",
        "scene": "Трёхмерный вид: поворачивайте мышью, время идёт само ({size} МБ)",
        "scene_alone": "отдельной страницей",
        "made": "Сделано fourdgs {version}{commit}; ядер: {cores}, процессор: {processor}, {gpus}; "
        "Python {python}, PyTorch {torch}; sha256 входных данных {inputs}.",
        "commit": ", коммит {commit}",
        "modified": " (с изменениями)",
        "processor": "без названия",
        "no_gpu": "без GPU",
        "absent": "нет",
    },
}

HEADINGS: dict[str, dict[str, str]] = {
    "ru": {
        "The dataset, before any GPU time": "Набор данных, пока GPU не потрачен",
        "Findings, and what to do": "Что найдено и что с этим делать",
        "What there is": "Что есть",
        "Which camera saw which time": "Какая камера какое время видела",
        "Where the cameras stand": "Где стоят камеры",
        "Do the sources look alike?": "Похожи ли источники?",
        "What the worst findings look like": "Как выглядит худшее из найденного",
        "After the remedies": "После исправлений",
        "One run": "Один прогон",
        "Train and held-out PSNR": "PSNR на обучающих и на отложенных кадрах",
        "Pictures against the truth": "Картинки против истины",
        "In figures": "В числах",
        "Runs side by side": "Прогоны рядом",
        "By eye": "На глаз",
        "Camera by camera": "Камера за камерой",
        "Frame against frame": "Кадр против кадра",
        "Means with intervals": "Средние с интервалами",
        "Train against held-out": "Обучающие против отложенных",
        "The verdict": "Вердикт",
        "What was registered": "Что было заявлено",
        "The table": "Таблица",
        "Look for yourself": "Посмотрите сами",
        "What the rows say": "Что говорят строки",
        "What it cost": "Во что это обошлось",
        "What was not tested": "Чего не проверяли",
        "What each remedy is worth": "Чего стоит каждое средство",
        "The gains": "Выигрыш",
        "What it cost, and what floats": "Во что это обошлось и что висит в воздухе",
        "How many cameras and times?": "Сколько нужно камер и моментов?",
        "The answer": "Ответ",
        "The cells": "Клетки",
        "The law": "Закон",
        "What a level needs": "Что нужно для уровня",
        "An avatar that talks": "Аватар, который говорит",
        "What it is trained on": "На чём он обучен",
        "Against the truth": "Против истины",
        "What is wrong": "Что не так",
        "Faces to order": "Лица на заказ",
        "The film": "Фильм",
    }
}


def words_of(lang: str) -> Mapping[str, str]:
    """The fixed words of a language.

    Raises:
        InputError: none that is known.
    """
    if lang not in WORDS:
        raise InputError(f"{lang!r} is unknown", field="lang", remedy=f"use one of {', '.join(WORDS)}")
    return WORDS[lang]


def heading(text: str, lang: str) -> str:
    """A heading of the house's notebooks in another language; one that is not known stays as it is."""
    return HEADINGS.get(lang, {}).get(text.strip(), text)


def translated(markdown: str, lang: str) -> str:
    """The same Markdown with its known headings in another language."""

    def one(line: str) -> str:
        marks, _, text = line.partition(" ")
        return f"{marks} {heading(text, lang)}" if marks and not marks.strip("#") else line

    return outside_code(markdown, one) if lang in HEADINGS else markdown
