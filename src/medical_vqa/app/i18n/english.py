"""The English texts of the page; every other language has the same keys and placeholders."""

from __future__ import annotations

from collections.abc import Mapping

TEXTS: Mapping[str, str] = {
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
    "examples_source": "Examples: {source}. The shipped model was trained on these pictures: its answers about them do "
    "not show how good it is on others.",
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
    "cut_off": "The end is missing: the answer reached the limit of its length.",
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
    "reason_other_answer_excludes": "The model answers {other_answer} to “{opposite}”, which excludes this question or "
    "its answer.",
    "reason_organ_not_seen": "The model answers {other_answer} to “{opposite}”, so an answer about it would mean "
    "nothing.",
    "reason_picture_does_not_matter": "The picture does not change the answer to this question: other pictures of "
    "this type get the same answer.",
    "reason_same_answer_without_picture": "The model gives the same answer about a black picture and about this one "
    "with its parts out of order, so it does not come from this picture.",
    "reason_type_not_reliable": "On questions of this type ({type}) it is not shown that the picture helps "
    "the model: {accuracy} right with it and {baseline} without it, 95 % interval of the difference {difference} "
    "points, n={questions}{auc}.",
    "reason_type_at_chance": "It is not shown that the model's yes or no to questions of this type ({type}) is better "
    "than chance, n={questions} validation questions of the type{auc}.",
    "reason_never_sure_enough": "The model is {confidence} sure, and on questions about findings no confidence is high "
    "enough: for none is it shown that at most {risk} of its answers are wrong.",
    "reason_low_confidence": "The model is not sure: it is {confidence} sure, and more than {risk} of its answers are "
    "wrong where it is less than {threshold} sure.",
    "reason_foreign_language": "The model does not read this language; ask again in one that it reads: {languages}.",
    "reason_asks_why": "The model cannot say why: it chooses among the answers of its training rows and gives no "
    "reasons. Ask about the picture itself.",
    "reason_asks_description": "The model writes no descriptions and no reports: it chooses one answer to one "
    "question. Ask about one thing, such as the modality or an organ.",
    "reason_negated_question": "A yes to a question with a negation can be read both ways; ask without {negation}.",
    "reason_question_too_long": "The question has {number} words, of which the model reads {limit}; ask a shorter one.",
    "reason_several_questions": "These are {number} questions; ask one at a time.",
    "reason_missing_subject": "The question does not say what it is about; name an organ or a finding, or ask for the "
    "modality or the plane.",
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
