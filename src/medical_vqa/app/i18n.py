"""Everything the page says, in English and Chinese."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Language = Literal["en", "zh"]
LANGUAGES: Mapping[Language, str] = {"en": "English", "zh": "中文"}

ENGLISH: Mapping[str, str] = {
    "language": "Language",
    "research_only": "Research software. Not a medical device, and not for diagnosis.",
    # --- choosing an image
    "start": "Ask about a medical image",
    "start_more": "Upload an X-ray, CT or MRI picture and ask in your own words. You see the answer, how sure the "
    "model is, and where it looked.",
    "upload": "Upload an image",
    "upload_hint": "JPEG, PNG, TIFF or DICOM, up to {megabytes} MB. Choose pictures without names on them.",
    "browse": "Choose a file",
    "drop": "or drop it here",
    "examples": "Or start with an example",
    "new_image": "Another image",
    "back_to": "Back to {name}",
    "opening": "Reading the image…",
    "source": "Examples: {source}",
    # --- the picture
    "picture": "Picture",
    "picture_alt": "The picture you ask about: {name}",
    "zoom_in": "Zoom in",
    "zoom_out": "Zoom out",
    "zoom_reset": "Fit",
    "zoom_help": "Picture. Plus and minus zoom, arrow keys move, 0 fits.",
    "look_toggle": "Where it looked",
    "look_for": "Where the model looked for: {question}",
    "look_place": "The model looked most at the {place} of the picture.",
    "place_00": "upper left",
    "place_01": "upper middle",
    "place_02": "upper right",
    "place_10": "middle left",
    "place_11": "center",
    "place_12": "middle right",
    "place_20": "lower left",
    "place_21": "lower middle",
    "place_22": "lower right",
    "show_look": "Show where it looked",
    "frame": "Frame",
    "frame_of": "frame {number} of {frames}",
    "window": "Window",
    "center": "Center",
    "width": "Width",
    "preset_header": "From the file",
    "preset_soft_tissue": "Soft tissue",
    "preset_lung": "Lung",
    "preset_bone": "Bone",
    "preset_brain": "Brain",
    "preset_own": "Own",
    "burned_in": "This file says that words are part of the picture. Make sure that no name can be read.",
    "dropped": "Not kept from the file: {what}.",
    # --- privacy
    "privacy_here": "The picture stays on the server of this page",
    "privacy_there": "The picture is sent to {host}",
    "deleted_after": "and is deleted there after {time}.",
    "deleted_never": "and stays there until you delete it.",
    "delete_now": "Delete now",
    "hours": "{n}\u00a0h",
    "minutes": "{n}\u00a0min",
    # --- asking
    "ask": "Ask about this image",
    "ask_hint": "Type a question and press Enter",
    "suggested": "Try asking",
    "thinking": "Looking at the picture…",
    "you_asked": "You asked",
    "confidence": "Confidence",
    "no_confidence": "This model gives no confidence.",
    "alternatives": "Other possible answers",
    "not_sure": "Not sure",
    "not_sure_more": "Better not rely on an answer here.",
    "best_guess": "Best guess",
    "guesses": "What it would have guessed",
    "answered_by": "{model} · {milliseconds} ms",
    "compare": "Compare with {model}",
    "download": "Download",
    "download_text": "As text (Markdown)",
    "download_data": "As data (JSON)",
    "announce": "Answer: {answer}, confidence {confidence}.",
    "announce_unsure": "Not sure. {reason}",
    # --- feedback
    "good": "Right",
    "bad": "Wrong",
    "correction": "What is the right answer?",
    "correction_hint": "A word or a short phrase",
    "keep_picture": "Also keep the picture, so that a model can learn from this",
    "send": "Save",
    "thanks": "Thank you, noted.",
    "thanks_taught": "Thank you. Picture, question and answer are kept for training.",
    "feedback_failed": "This could not be saved.",
    # --- when something goes wrong
    "retry": "Try again",
    "asleep": "The model is waking up",
    "asleep_more": "The server sleeps when nobody asks. This takes up to a minute; the page goes on by itself.",
    "asleep_long": "It takes longer than usual. If this stays so, whoever runs this page should look at {host}.",
    "upload_failed": "{name} could not be opened",
    "problem_not_an_image": "This file is not a picture that can be read. Try a JPEG, PNG, TIFF or DICOM file.",
    "problem_unauthorized": "The page is not allowed to ask the model. Whoever runs it must check its API key.",
    "problem_unknown_image": "The server no longer has this picture. Upload it again.",
    "problem_not_found": "The server does not know what the page asked for. Its version may be too old.",
    "problem_method_not_allowed": "The server does not know what the page asked for. Its version may be too old.",
    "problem_timeout": "The upload was too slow. Try again, or use a smaller file.",
    "problem_too_large": "This file is too large. Try a smaller one.",
    "problem_unsupported_media_type": "Files of this kind cannot be read. Try a JPEG, PNG, TIFF or DICOM file.",
    "problem_invalid": "The server could not use this. Try other words, or another file.",
    "problem_rate_limited": "That were many questions in a short time. Wait a minute, then try again.",
    "problem_overloaded": "Many people are asking just now. Try again in a moment.",
    "problem_deadline": "The answer took too long. Try again in a moment.",
    "problem_internal": "Something broke on the server. It is not your fault; try again.",
    "problem_not_ready": "The model is not ready yet. Try again in a moment.",
    "problem_unreachable": "The server cannot be reached at the moment. Try again in a moment.",
    "problem_slow": "The server did not answer in time. Try again in a moment.",
    "problem_garbled": "The server answered in a way that this page does not understand.",
}

CHINESE: Mapping[str, str] = {
    "language": "语言",
    "research_only": "研究软件，不是医疗器械，不可用于诊断。",
    # --- choosing an image
    "start": "对医学影像提问",
    "start_more": "上传一张 X 光、CT 或 MRI 图像，用自己的话提问。您会看到答案、模型的把握程度以及它关注的位置。",
    "upload": "上传图像",
    "upload_hint": "支持 JPEG、PNG、TIFF 或 DICOM，最大 {megabytes} MB。请选择不含姓名的图像。",
    "browse": "选择文件",
    "drop": "或拖放到此处",
    "examples": "或从示例开始",
    "new_image": "换一张图像",
    "back_to": "返回 {name}",
    "opening": "正在读取图像……",
    "source": "示例来源：{source}",
    # --- the picture
    "picture": "图像",
    "picture_alt": "您提问的图像：{name}",
    "zoom_in": "放大",
    "zoom_out": "缩小",
    "zoom_reset": "适应窗口",
    "zoom_help": "图像。加号和减号缩放，方向键移动，0 恢复。",
    "look_toggle": "关注区域",
    "look_for": "模型回答此问题时关注的位置：{question}",
    "look_place": "模型最关注图像的{place}。",
    "place_00": "左上部",
    "place_01": "上部中间",
    "place_02": "右上部",
    "place_10": "中部左侧",
    "place_11": "中央",
    "place_12": "中部右侧",
    "place_20": "左下部",
    "place_21": "下部中间",
    "place_22": "右下部",
    "show_look": "显示关注区域",
    "frame": "帧",
    "frame_of": "第 {number} 帧，共 {frames} 帧",
    "window": "窗",
    "center": "窗位",
    "width": "窗宽",
    "preset_header": "文件默认",
    "preset_soft_tissue": "软组织",
    "preset_lung": "肺",
    "preset_bone": "骨",
    "preset_brain": "脑",
    "preset_own": "自定义",
    "burned_in": "该文件注明图像中包含文字，请确认其中没有可辨认的姓名。",
    "dropped": "文件中未保留的内容：{what}。",
    # --- privacy
    "privacy_here": "图像只保存在本页面的服务器上",
    "privacy_there": "图像会发送到 {host}",
    "deleted_after": "，并在 {time}后从那里删除。",
    "deleted_never": "，在您删除之前会一直保留。",
    "delete_now": "立即删除",
    "hours": "{n} 小时",
    "minutes": "{n} 分钟",
    # --- asking
    "ask": "就这张图像提问",
    "ask_hint": "输入问题，按回车发送",
    "suggested": "可以这样问",
    "thinking": "正在查看图像……",
    "you_asked": "您的问题",
    "confidence": "置信度",
    "no_confidence": "该模型不提供置信度。",
    "alternatives": "其他可能的答案",
    "not_sure": "不确定",
    "not_sure_more": "此处的答案最好不要采信。",
    "best_guess": "最可能的答案",
    "guesses": "若一定要回答",
    "answered_by": "{model} · {milliseconds} 毫秒",
    "compare": "与 {model} 比较",
    "download": "下载",
    "download_text": "文本（Markdown）",
    "download_data": "数据（JSON）",
    "announce": "答案：{answer}，置信度 {confidence}。",
    "announce_unsure": "不确定。{reason}",
    # --- feedback
    "good": "正确",
    "bad": "错误",
    "correction": "正确答案是什么？",
    "correction_hint": "一个词或一个短语",
    "keep_picture": "同时保留图像，供模型学习",
    "send": "保存",
    "thanks": "谢谢，已记录。",
    "thanks_taught": "谢谢。图像、问题和答案已保留用于训练。",
    "feedback_failed": "未能保存。",
    # --- when something goes wrong
    "retry": "重试",
    "asleep": "模型正在启动",
    "asleep_more": "无人提问时服务器会休眠。启动最多需要一分钟，页面会自动继续。",
    "asleep_long": "启动时间比平常长。如果一直如此，请页面管理员检查 {host}。",
    "upload_failed": "无法打开 {name}",
    "problem_not_an_image": "该文件不是可以读取的图像。请使用 JPEG、PNG、TIFF 或 DICOM 文件。",
    "problem_unauthorized": "本页面无权向模型提问，请管理员检查 API 密钥。",
    "problem_unknown_image": "服务器上已没有这张图像，请重新上传。",
    "problem_not_found": "服务器不认识本页面的请求，其版本可能过旧。",
    "problem_method_not_allowed": "服务器不认识本页面的请求，其版本可能过旧。",
    "problem_timeout": "上传太慢。请重试，或使用较小的文件。",
    "problem_too_large": "文件太大，请使用较小的文件。",
    "problem_unsupported_media_type": "无法读取此类文件。请使用 JPEG、PNG、TIFF 或 DICOM 文件。",
    "problem_invalid": "服务器无法使用这些内容。请换一种说法，或换一个文件。",
    "problem_rate_limited": "短时间内提问过多，请等一分钟再试。",
    "problem_overloaded": "现在提问的人很多，请稍后再试。",
    "problem_deadline": "回答用时过长，请稍后再试。",
    "problem_internal": "服务器出错了，这不是您的问题，请重试。",
    "problem_not_ready": "模型尚未就绪，请稍后再试。",
    "problem_unreachable": "暂时无法连接服务器，请稍后再试。",
    "problem_slow": "服务器没有及时回答，请稍后再试。",
    "problem_garbled": "本页面无法理解服务器的回答。",
}

_TEXTS: Mapping[Language, Mapping[str, str]] = {"en": ENGLISH, "zh": CHINESE}


@dataclass(frozen=True, slots=True)
class Words:
    """The page's texts in one language: ``words("frame_of", number=3, frames=20)``."""

    language: Language
    """Which one."""

    def __call__(self, key: str, **values: object) -> str:
        """A text, with its blanks filled in."""
        return _TEXTS[self.language][key].format(**values)

    def problem(self, kind: str) -> str:
        """What went wrong, and what to do."""
        return self(f"problem_{kind}")

    def duration(self, seconds: float) -> str:
        """A time in minutes, or in hours where it is two or more."""
        minutes = max(1, round(seconds / 60))
        return self("hours", n=round(minutes / 60)) if minutes >= 120 else self("minutes", n=minutes)


def language_of(locale: str | None) -> Language:
    """The page's language for a browser's; English for all that is not Chinese."""
    return "zh" if (locale or "").lower().startswith("zh") else "en"
