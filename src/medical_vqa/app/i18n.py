"""All texts of the page, in English and Chinese."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from string import Formatter
from typing import Literal

Language = Literal["en", "zh"]
LANGUAGES: Mapping[Language, str] = {"en": "English", "zh": "中文"}

ENGLISH: Mapping[str, str] = {
    "language": "Language",
    "research_only": "Research software. Not a medical device, and not for diagnosis.",
    # --- choosing an image
    "intro_title": "Ask about a medical image",
    "intro_text": "Upload an X-ray, CT or MRI picture and ask in your own words. You see the answer, how sure the "
    "model is, and where it looked.",
    "upload": "Upload an image",
    "upload_hint": "JPEG, PNG, TIFF or DICOM, up to {megabytes} MB. Choose pictures without names on them.",
    "upload_browse": "Choose a file",
    "upload_drop": "or drop it here",
    "examples": "Or start with an example",
    "examples_source": "Examples: {source}",
    "new_image": "Another image",
    "back_to": "Back to {name}",
    "opening": "Reading the image…",
    # --- the image
    "image_alt": "The picture you ask about: {name}",
    "zoom_in": "Zoom in",
    "zoom_out": "Zoom out",
    "zoom_reset": "Fit",
    "zoom_help": "Picture. Plus and minus zoom, arrow keys move, 0 fits.",
    "attention_toggle": "Where it looked",
    "attention_caption": "Where the model looked for: {question}",
    "attention_show": "Show where it looked",
    "attention_region": "The model looked most at the {region} of the picture.",
    "region_00": "upper left",
    "region_01": "upper middle",
    "region_02": "upper right",
    "region_10": "middle left",
    "region_11": "center",
    "region_12": "middle right",
    "region_20": "lower left",
    "region_21": "lower middle",
    "region_22": "lower right",
    "frame": "Frame",
    "frame_of": "frame {number} of {frames}",
    "window": "Window",
    "window_center": "Center",
    "window_width": "Width",
    "preset_header": "From the file",
    "preset_soft_tissue": "Soft tissue",
    "preset_lung": "Lung",
    "preset_bone": "Bone",
    "preset_brain": "Brain",
    "burned_in": "This file says that text is part of the picture. Make sure that no name can be read.",
    # --- privacy
    "stored_locally": "The picture stays on the server of this page",
    "sent_to_host": "The picture is sent to {host}",
    "deleted_after": "and is deleted there after {time}.",
    "deleted_never": "and stays there until you delete it.",
    "not_stored": "Not kept from the file: {parts}.",
    "delete_now": "Delete now",
    "hours": "{n}\u00a0h",
    "minutes": "{n}\u00a0min",
    # --- questions and answers
    "ask_hint": "Type a question and press Enter",
    "suggestions": "Try asking",
    "answering_seconds": "{seconds} s",
    "cancel": "Cancel",
    "other_images": "Earlier images to send with the question",
    "with_images": "with {names}",
    "remembers": "This model remembers the last {turns} questions about this image.",
    "forgets": "This model does not remember: ask whole questions.",
    "no_attention_map": "This model has no map of where it looked.",
    "agreement": "Agreement of several answers",
    "answering": "Looking at the picture…",
    "question_label": "You asked",
    "confidence": "Confidence",
    "no_confidence": "This model gives no confidence.",
    "alternatives": "Other possible answers",
    "ask_instead": "Questions that can be answered:",
    "abstained": "Not sure",
    "no_answer": "No answer",
    "abstained_text": "Do not rely on an answer here.",
    "side_patient": "Left and right are the patient's: the patient's left is at the right of the picture.",
    "side_picture": "Left and right are those of the picture, as you look at it.",
    "side_both": "The side of the organ is the patient's; the position is that in the picture, as you look at it.",
    "source_picture": "From this picture: other pictures of its type get other answers, or the same less surely.",
    "source_usual": "From what is usual: other pictures of this type get the same answer just as surely.",
    "source_knowledge": "General knowledge, not read from this picture.",
    "outline_toggle": "Outline",
    "outlined": "Outlined in the picture: {names}",
    "outlined_box": "{name} (roughly)",
    "outlined_area": "{name}, {area} cm²",
    "marker_right": "R",
    "marker_left": "L",
    "marker_help": "R and L: the patient's right and left, as such pictures are usually shown",
    # --- why it abstains
    "reason_constant_picture": "This picture shows nothing: nearly all of it has one value. Check the frame and the "
    "window.",
    "reason_not_radiology_colors": "This does not look like a radiology picture, because it has colors. The model was "
    "trained on {trained} only.",
    "reason_not_radiology_levels": "This does not look like a radiology picture: it has a few flat values, as a "
    "drawing or a mask has.",
    "reason_not_radiology_features": "This picture is unlike every picture that the model was trained on, so an "
    "answer would mean nothing.",
    "reason_modality_not_trained": "The file says that it is of modality {modality}; the model was trained "
    "on {trained} only.",
    "reason_modality_contradicts_header": "The file names the modality {modality}, and it looks like {answer} to the "
    "model: it cannot rely on what it sees.",
    "reason_contradiction": "The model answers {answer} to this question and {other_answer} to its opposite "
    "(“{opposite}”), so neither answer means anything.",
    "reason_paraphrase_disagrees": "The model answers {answer} to this question and {other_answer} to the same in "
    "other words (“{opposite}”), so neither answer means anything.",
    "reason_organ_not_seen": "The model answers {other_answer} to “{opposite}”, so an answer about it would mean "
    "nothing.",
    "reason_picture_does_not_matter": "The picture does not change the answer to this question: other pictures of "
    "this type get the same answer.",
    "reason_same_answer_without_picture": "The model gives the same answer about a black picture and about this one "
    "with its parts out of order, so it does not come from this picture.",
    "reason_type_not_reliable": "On questions of this type ({type}) it is not shown that the picture helps "
    "the model: {accuracy} right with it and {baseline} without it, 95 % interval of the difference {difference} "
    "points, n={questions}{auc}.",
    "reason_never_sure_enough": "The model is {confidence} sure, and on questions about findings no confidence is high "
    "enough: for none is it shown that at most {risk} of its answers are wrong.",
    "reason_low_confidence": "The model is not sure: its confidence is {confidence}, and below {threshold} more than "
    "{risk} of its answers are wrong.",
    "reason_foreign_language": "The model reads {languages} only; ask again in that.",
    "reason_asks_why": "The model cannot say why: it chooses among the answers of its training rows and gives no "
    "reasons. Ask about the picture itself.",
    "reason_asks_description": "The model writes no descriptions and no reports: it chooses one answer to one "
    "question. Ask about one thing, such as the modality or an organ.",
    "reason_negated_question": "A yes to a question with a negation can be read both ways; ask without {negation}.",
    "reason_question_too_long": "The question has {number} words, of which the model reads {limit}; ask a shorter one.",
    "reason_several_questions": "These are {number} questions; ask one at a time.",
    "reason_incomplete_question": "It is not clear what you want to know about {topic}; ask a whole question.",
    "reason_unknown_word": "The model does not know the word {words}; ask again without it.",
    "reason_unknown_words": "The model does not know the words {words}; ask again without them.",
    "reason_untrained_term": "None of the model's training questions is about {terms}; ask again without it.",
    "reason_untrained_terms": "None of the model's training questions is about {terms}; ask again without them.",
    "reason_unknown_words_and_terms": "The model does not know {words}, and none of its training questions is about "
    "{terms}; ask again without them.",
    "reason_organ_not_in_image_type": "The model cannot tell from this kind of image: no training picture like it "
    "shows the {entity}.",
    "reason_finding_not_in_image_type": "The model cannot tell from this kind of image: no training picture like it "
    "shows {entity}.",
    "reason_empty_answer": "The model gave no answer: it was filtered, or its thinking used up the tokens of the "
    "answer.",
    "reason_model_declined": "The model declined the question instead of answering it.",
    "reason_question_scope": "The model was not trained to answer this question.",
    "best_guess": "Best guess",
    "withheld_answers": "What it would have guessed",
    "answered_by": "{model} · {milliseconds} ms",
    "compare": "Compare with {model}",
    "download": "Download",
    "download_markdown": "As text (Markdown)",
    "download_json": "As data (JSON)",
    "announce_answer": "Answer: {answer}, confidence {confidence}.",
    "announce_abstained": "{title}. {reason}",
    # --- ratings
    "rate_right": "Right",
    "rate_wrong": "Wrong",
    "correction": "What is the right answer?",
    "correction_hint": "A word or a short phrase",
    "keep_picture": "Also keep the picture, so that a model can learn from it",
    "save": "Save",
    "rating_saved": "Thank you, saved.",
    "rating_saved_for_training": "Thank you. Picture, question and answer are kept for training.",
    "rating_failed": "This could not be saved.",
    # --- failures
    "retry": "Try again",
    "starting": "The model is starting",
    "starting_text": "The server stops when nobody uses it. Starting takes up to a minute; this page then "
    "continues by itself.",
    "starting_slow": "It takes longer than usual. If this does not change, the operator of this page should "
    "check {host}.",
    "upload_failed": "{name} could not be opened",
    "failure_not_an_image": "This file is not a picture that can be read. Try a JPEG, PNG, TIFF or DICOM file.",
    "failure_unauthorized": "This page has no permission to ask the model. Its operator must check the API key.",
    "failure_unknown_image": "The server no longer has this picture. Upload it again.",
    "failure_source_failed": "The archive gives no pictures at the moment. Try again, or upload the files.",
    "failure_unknown_conversation": "This session has ended. Upload the picture again.",
    "failure_no_values": "Only 8 bits of this picture are stored. Upload the original again to change its window.",
    "failure_not_found": "The server does not know this page's request. Its version may be too old.",
    "failure_method_not_allowed": "The server does not know this page's request. Its version may be too old.",
    "failure_timeout": "The upload was too slow. Try again, or use a smaller file.",
    "failure_too_large": "This file is too large. Try a smaller one.",
    "failure_unsupported_media_type": "Files of this type cannot be read. Try a JPEG, PNG, TIFF or DICOM file.",
    "failure_invalid": "The server could not use this. Try other words, or another file.",
    "failure_quota_exceeded": "This page may store no more pictures now. Delete some, or try again later.",
    "failure_forbidden": "This page's key does not allow that. Its operator must use another key.",
    "failure_rate_limited": "Too many questions in a short time. Wait a minute, then try again.",
    "failure_overloaded": "Many people are asking just now. Try again in a moment.",
    "failure_deadline": "The answer took too long. Try again in a moment.",
    "failure_internal": "Something broke on the server. It is not your fault; try again.",
    "failure_not_ready": "The model is not ready yet. Try again in a moment.",
    "failure_canceled": "You canceled this question.",
    "failure_engine_unavailable": "The model's engine gives no answer. Try again in a moment; the server does so too.",
    "failure_engine_refused": "The model's engine refuses this server. Its operator must correct the settings.",
    "failure_unreachable": "The server cannot be reached at the moment. Try again in a moment.",
    "failure_response_timeout": "The server did not answer in time. Try again in a moment.",
    "failure_invalid_response": "The server sent a response that this page does not understand.",
}

CHINESE: Mapping[str, str] = {
    "language": "语言",
    "research_only": "研究软件，不是医疗器械，不可用于诊断。",
    # --- choosing an image
    "intro_title": "对医学影像提问",
    "intro_text": "上传一张 X 光、CT 或 MRI 图像，用自己的话提问。您会看到答案、模型的把握程度以及它关注的位置。",
    "upload": "上传图像",
    "upload_hint": "支持 JPEG、PNG、TIFF 或 DICOM，最大 {megabytes} MB。请选择不含姓名的图像。",
    "upload_browse": "选择文件",
    "upload_drop": "或拖放到此处",
    "examples": "或从示例开始",
    "examples_source": "示例来源：{source}",
    "new_image": "换一张图像",
    "back_to": "返回 {name}",
    "opening": "正在读取图像……",
    # --- the image
    "image_alt": "您提问的图像：{name}",
    "zoom_in": "放大",
    "zoom_out": "缩小",
    "zoom_reset": "适应窗口",
    "zoom_help": "图像。加号和减号缩放，方向键移动，0 恢复。",
    "attention_toggle": "关注区域",
    "attention_caption": "模型回答此问题时关注的位置：{question}",
    "attention_show": "显示关注区域",
    "attention_region": "模型最关注图像的{region}。",
    "region_00": "左上部",
    "region_01": "上部中间",
    "region_02": "右上部",
    "region_10": "中部左侧",
    "region_11": "中央",
    "region_12": "中部右侧",
    "region_20": "左下部",
    "region_21": "下部中间",
    "region_22": "右下部",
    "frame": "帧",
    "frame_of": "第 {number} 帧，共 {frames} 帧",
    "window": "窗",
    "window_center": "窗位",
    "window_width": "窗宽",
    "preset_header": "文件默认",
    "preset_soft_tissue": "软组织",
    "preset_lung": "肺",
    "preset_bone": "骨",
    "preset_brain": "脑",
    "burned_in": "该文件注明图像中包含文字，请确认其中没有可辨认的姓名。",
    # --- privacy
    "stored_locally": "图像只保存在本页面的服务器上",
    "sent_to_host": "图像会发送到 {host}",
    "deleted_after": "，并在 {time}后从那里删除。",
    "deleted_never": "，在您删除之前会一直保留。",
    "not_stored": "文件中未保留的内容：{parts}。",
    "delete_now": "立即删除",
    "hours": "{n} 小时",
    "minutes": "{n} 分钟",
    # --- questions and answers
    "ask_hint": "输入问题，按回车发送",
    "suggestions": "可以这样问",
    "answering_seconds": "{seconds} 秒",
    "cancel": "取消",
    "other_images": "与问题一起发送的先前图像",
    "with_images": "同时发送：{names}",
    "remembers": "该模型会记住关于此图像的最近 {turns} 个问题。",
    "forgets": "该模型不记得之前的问题，请提完整的问题。",
    "no_attention_map": "该模型没有关注区域图。",
    "agreement": "多次回答的一致程度",
    "answering": "正在查看图像……",
    "question_label": "您的问题",
    "confidence": "置信度",
    "no_confidence": "该模型不提供置信度。",
    "alternatives": "其他可能的答案",
    "ask_instead": "可以回答的问题：",
    "abstained": "不确定",
    "no_answer": "不作回答",
    "abstained_text": "请勿采信此处的答案。",
    "side_patient": "左右指患者的左右：患者的左侧位于图像右侧。",
    "side_picture": "左右指图像的左右，即您看到的方向。",
    "side_both": "器官的左右指患者的左右；位置指图像中的位置，即您看到的方向。",
    "source_picture": "依据本图像：同类其他图像得到不同的答案，或同样答案但把握更小。",
    "source_usual": "依据一般情况：同类其他图像会得到同样的答案，把握也相同。",
    "source_knowledge": "依据一般知识，并非来自本图像。",
    "outline_toggle": "轮廓",
    "outlined": "图像中已勾出：{names}",
    "outlined_box": "{name}（大致范围）",
    "outlined_area": "{name}，{area} 平方厘米",
    "marker_right": "R（右）",
    "marker_left": "L（左）",
    "marker_help": "R 和 L：患者的右侧和左侧，按此类图像的惯例显示",
    # --- why it abstains
    "reason_constant_picture": "图像中没有内容：几乎所有像素都是同一个值。请检查帧和窗。",
    "reason_not_radiology_colors": "这看起来不是放射影像，因为它有颜色。模型只用 {trained} 训练过。",
    "reason_not_radiology_levels": "这看起来不是放射影像：它只有少数几个灰度值，像图画或掩膜。",
    "reason_not_radiology_features": "这张图像与模型训练用过的所有图像都不同，任何答案都没有意义。",
    "reason_modality_not_trained": "文件注明的成像方式是 {modality}；模型只用 {trained} 训练过。",
    "reason_modality_contradicts_header": "文件注明的成像方式是 {modality}，而模型看来是 {answer}："
    "它不能依靠所看到的内容。",
    "reason_contradiction": "模型对此问题回答“{answer}”，对相反的问题（“{opposite}”）回答“{other_answer}”，"
    "因此两个答案都没有意义。",
    "reason_paraphrase_disagrees": "模型对此问题回答“{answer}”，对换一种说法的同一问题（"
    "“{opposite}”）回答“{other_answer}”，"
    "因此两个答案都没有意义。",
    "reason_organ_not_seen": "模型对“{opposite}”回答“{other_answer}”，因此关于它的答案没有意义。",
    "reason_picture_does_not_matter": "图像没有改变此问题的答案：同类的其他图像得到同样的答案。",
    "reason_same_answer_without_picture": "对全黑的图像和打乱顺序的本图像，模型给出同样的答案，"
    "因此答案并非来自这张图像。",
    "reason_type_not_reliable": "对于这类问题（{type}），没有证据表明图像对模型有帮助：看图像时正确率 "
    "{accuracy}，不看时 {baseline}，差值的 95% 区间为 {difference} 个百分点，n={questions}{auc}。",
    "reason_never_sure_enough": "模型的把握为 {confidence}，但对于病变问题，任何把握都不够："
    "没有证据表明错误的回答不超过 {risk}。",
    "reason_low_confidence": "模型没有把握：置信度为 {confidence}；低于 {threshold} 时，超过 {risk} 的答案是错的。",
    "reason_foreign_language": "模型只能读懂{languages}，请用该语言提问。",
    "reason_asks_why": "模型无法说明原因：它只从训练数据的答案中选择，不给出理由。请就图像本身提问。",
    "reason_asks_description": "模型不写描述，也不写报告：它对一个问题选择一个答案。"
    "请问一件事，例如成像方式或某个器官。",
    "reason_negated_question": "对否定问题回答“是”有两种理解，请去掉 {negation} 再问。",
    "reason_question_too_long": "问题有 {number} 个词，模型最多读 {limit} 个，请提一个短一些的问题。",
    "reason_several_questions": "这里有 {number} 个问题，请一次只问一个。",
    "reason_incomplete_question": "不清楚您想了解 {topic} 的什么，请提出完整的问题。",
    "reason_unknown_word": "模型不认识词语 {words}，请去掉它再问。",
    "reason_unknown_words": "模型不认识这些词语：{words}，请去掉它们再问。",
    "reason_untrained_term": "训练问题中没有关于 {terms} 的，请去掉它再问。",
    "reason_untrained_terms": "训练问题中没有关于 {terms} 的，请去掉它们再问。",
    "reason_unknown_words_and_terms": "模型不认识 {words}，训练问题中也没有关于 {terms} 的，请去掉它们再问。",
    "reason_organ_not_in_image_type": "模型无法从这类图像判断：训练用的同类图像中没有{entity}。",
    "reason_finding_not_in_image_type": "模型无法从这类图像判断：训练用的同类图像中没有{entity}。",
    "reason_empty_answer": "模型没有给出答案：答案被过滤，或思考用完了答案的词元。",
    "reason_model_declined": "模型没有回答这个问题，而是拒绝了它。",
    "reason_question_scope": "模型没有学过回答这个问题。",
    "best_guess": "最可能的答案",
    "withheld_answers": "若一定要回答",
    "answered_by": "{model} · {milliseconds} 毫秒",
    "compare": "与 {model} 比较",
    "download": "下载",
    "download_markdown": "文本（Markdown）",
    "download_json": "数据（JSON）",
    "announce_answer": "答案：{answer}，置信度 {confidence}。",
    "announce_abstained": "结果：{title}。{reason}",
    # --- ratings
    "rate_right": "正确",
    "rate_wrong": "错误",
    "correction": "正确答案是什么？",
    "correction_hint": "一个词或一个短语",
    "keep_picture": "同时保留图像，供模型学习",
    "save": "保存",
    "rating_saved": "谢谢，已保存。",
    "rating_saved_for_training": "谢谢。图像、问题和答案已保留用于训练。",
    "rating_failed": "未能保存。",
    # --- failures
    "retry": "重试",
    "starting": "模型正在启动",
    "starting_text": "无人使用时服务器会停止运行。启动最多需要一分钟，页面会自动继续。",
    "starting_slow": "启动时间比平常长。如果一直如此，请页面管理员检查 {host}。",
    "upload_failed": "无法打开 {name}",
    "failure_not_an_image": "该文件不是可以读取的图像。请使用 JPEG、PNG、TIFF 或 DICOM 文件。",
    "failure_unauthorized": "本页面无权向模型提问，请管理员检查 API 密钥。",
    "failure_unknown_image": "服务器上已没有这张图像，请重新上传。",
    "failure_source_failed": "影像归档系统暂时没有返回图像。请重试，或直接上传文件。",
    "failure_unknown_conversation": "本次会话已结束，请重新上传图片。",
    "failure_no_values": "这张图片只保存了8位版本；要调整窗宽窗位，请重新上传原文件。",
    "failure_not_found": "服务器不认识本页面的请求，其版本可能过旧。",
    "failure_method_not_allowed": "服务器不认识本页面的请求，其版本可能过旧。",
    "failure_timeout": "上传太慢。请重试，或使用较小的文件。",
    "failure_too_large": "文件太大，请使用较小的文件。",
    "failure_unsupported_media_type": "无法读取此类文件。请使用 JPEG、PNG、TIFF 或 DICOM 文件。",
    "failure_invalid": "服务器无法使用这些内容。请换一种说法，或换一个文件。",
    "failure_quota_exceeded": "本页面目前不能再保存更多图像。请删除一些，或稍后再试。",
    "failure_forbidden": "本页面的密钥不允许此操作，请管理员更换密钥。",
    "failure_rate_limited": "短时间内提问过多，请等一分钟再试。",
    "failure_overloaded": "现在提问的人很多，请稍后再试。",
    "failure_deadline": "回答用时过长，请稍后再试。",
    "failure_internal": "服务器出错了，这不是您的问题，请重试。",
    "failure_not_ready": "模型尚未就绪，请稍后再试。",
    "failure_canceled": "您取消了这个问题。",
    "failure_engine_unavailable": "模型引擎没有响应。服务器会继续尝试，请稍后再试。",
    "failure_engine_refused": "模型引擎的设置有误，需要管理员更正。",
    "failure_unreachable": "暂时无法连接服务器，请稍后再试。",
    "failure_response_timeout": "服务器没有及时回答，请稍后再试。",
    "failure_invalid_response": "本页面无法理解服务器的回答。",
}

NAMES_IN_CHINESE: Mapping[str, str] = {
    "english": "英文", "english and chinese": "英文和中文", "yes": "是", "no": "否", "other pictures": "其他图像",
    "atelectasis": "肺不张", "bladder": "膀胱", "brain edema": "脑水肿", "brain enhancing tumor": "脑强化肿瘤",
    "brain non-enhancing tumor": "脑非强化肿瘤", "brain stem": "脑干", "cardiomegaly": "心脏肥大", "colon": "结肠",
    "duodenum": "十二指肠", "effusion": "积液", "esophagus": "食管", "heart": "心脏", "infiltrate": "浸润",
    "infiltration": "浸润", "kidney": "肾", "kidney cancer": "肾癌", "larynx": "喉", "left ear": "左耳",
    "left eye": "左眼", "left femoral head": "左股骨头", "left humerus head": "左肱骨头", "left kidney": "左肾",
    "left lung": "左肺", "left mandible": "左下颌骨", "left parotid": "左腮腺", "left temporal lobe": "左颞叶",
    "liver": "肝脏", "liver cancer": "肝癌", "lung": "肺", "lung cancer": "肺癌", "mass": "肿块", "nodule": "结节",
    "pneumonia": "肺炎", "pneumothorax": "气胸", "rectum": "直肠", "right ear": "右耳", "right eye": "右眼",
    "right femoral head": "右股骨头", "right humerus head": "右肱骨头", "right kidney": "右肾", "right lung": "右肺",
    "right mandible": "右下颌骨", "right parotid": "右腮腺", "right temporal lobe": "右颞叶", "small bowel": "小肠",
    "spinal cord": "脊髓", "spleen": "脾脏", "stomach": "胃", "tooth": "牙齿", "trachea": "气管",
}  # fmt: skip
"""What the backend names in English, in lower case, in Chinese."""

_TEXTS: Mapping[Language, Mapping[str, str]] = {"en": ENGLISH, "zh": CHINESE}


@dataclass(frozen=True, slots=True)
class Texts:
    """The page's texts in one language: ``texts("frame_of", number=3, frames=20)``."""

    language: Language
    """Language of the texts."""

    def __call__(self, key: str, **values: object) -> str:
        """The text of a key with its placeholders filled in."""
        return _TEXTS[self.language][key].format(**values)

    def reason(self, code: str | None, arguments: Mapping[str, str], sentence: str | None) -> str:
        """Why a model abstains.

        Args:
            code: Code of the reason, as the backend sent it.
            arguments: Values that the reason names.
            sentence: The backend's own sentence, in English.

        Returns:
            The reason in this language; the backend's sentence for a code that this page does not know.
        """
        key = f"reason_{code}"
        if key not in ENGLISH or (code == "question_scope" and self.language == "en"):
            return sentence or self("abstained_text")
        values = {name: self.name(value) for name, value in arguments.items()}
        if placeholders_of(ENGLISH[key]) - values.keys():
            return sentence or self("abstained_text")
        return self(key, **values)

    def abstained(self, code: str | None) -> str:
        """Heading of an abstention: "Not sure" where the confidence is low, otherwise "No answer"."""
        return self(
            "abstained" if code in (None, "low_confidence", "never_sure_enough", "question_scope") else "no_answer"
        )

    def name(self, text: str) -> str:
        """An organ, a finding or another value of the backend in this language; unchanged where it is not known."""
        if self.language == "en":
            return text
        known = NAMES_IN_CHINESE.get(text.lower())
        return known if known is not None else text.replace("' and '", "'和'")

    def failure(self, code: str) -> str:
        """What went wrong and what to do, for a failure code of the client."""
        return self(f"failure_{code}")

    def duration(self, seconds: float) -> str:
        """A duration in minutes, from two hours on in hours."""
        minutes = max(1, round(seconds / 60))
        return self("hours", n=round(minutes / 60)) if minutes >= 120 else self("minutes", n=minutes)


def placeholders_of(text: str) -> set[str]:
    """Names of the values that a text takes."""
    return {name for _, name, _, _ in Formatter().parse(text) if name}


def language_of(locale: str | None) -> Language:
    """The page's language for a browser's locale; English for everything that is not Chinese."""
    return "zh" if (locale or "").lower().startswith("zh") else "en"
