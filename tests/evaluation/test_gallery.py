import base64
import io

from PIL import Image

from medical_vqa.errors import ImageError
from medical_vqa.evaluation.reporting.gallery import select_answers, thumbnails
from medical_vqa.evaluation.statistics.correctness import JudgedAnswer
from medical_vqa.schema.records import Example, Prediction


def judged(id_, image, confidence, *, right=False):
    example = Example(id_, image, "What?", ("lung",), image)
    return JudgedAnswer(example, Prediction(id_, "x", "x", confidence), correct=right)


def test_errors_are_spread_over_images_and_the_most_confident_comes_first():
    answers = [judged("1", "a", 0.9), judged("2", "a", 0.8), judged("3", "b", 0.1), judged("4", "c", None)]
    assert [answer.example.id for answer in select_answers(answers, max_wrong=2, max_right=0)] == ["1", "3"]
    assert [answer.example.id for answer in select_answers(answers, max_wrong=3, max_right=0)] == ["1", "3", "4"]
    assert [answer.example.id for answer in select_answers(answers, max_wrong=4, max_right=0)] == ["1", "2", "3", "4"]


def test_right_answers_follow_and_do_not_depend_on_their_order():
    answers = [judged(str(n), f"scan-{n % 4}", 0.5, right=True) for n in range(20)]
    selected = select_answers(answers, max_wrong=5, max_right=4)
    assert selected == select_answers(answers[::-1], max_wrong=5, max_right=4)
    assert {answer.example.image_id for answer in selected} == {"scan-0", "scan-1", "scan-2", "scan-3"}


def test_each_image_is_decoded_once_and_made_small(images):
    small = thumbnails(["scan-1", "scan-1", "scan-2"], images)
    assert images.loaded == ["scan-1", "scan-2"]
    assert (small["scan-1"].key, small["scan-1"].width, small["scan-1"].height) == ("p0", 224, 149)
    image = Image.open(io.BytesIO(base64.b64decode(small["scan-1"].uri.partition(",")[2])))
    assert (image.format, image.size) == ("JPEG", (224, 149))


def test_an_image_that_cannot_be_read_is_left_out():
    class Broken:
        def load(self, image_id):
            raise ImageError(f"{image_id}: not an image")

        def digest(self, image_id):
            return ""

    assert thumbnails(["scan-1"], Broken()) == {}
