import base64
import io

from PIL import Image

from medical_vqa.errors import ImageError
from medical_vqa.evaluation.answers import Answered
from medical_vqa.evaluation.reporting.gallery import choose, thumbnails
from medical_vqa.schema.records import Example, Prediction


def answered(id_, image, confidence, *, right=False):
    return Answered(Example(id_, image, "What?", ("lung",), image), Prediction(id_, "x", "x", confidence), right=right)


def test_errors_are_spread_over_images_and_shown_surest_first():
    answers = [answered("1", "a", 0.9), answered("2", "a", 0.8), answered("3", "b", 0.1), answered("4", "c", None)]
    assert [one.example.id for one in choose(answers, wrong=2, right=0)] == ["1", "3"]
    assert [one.example.id for one in choose(answers, wrong=3, right=0)] == ["1", "3", "4"]
    assert [one.example.id for one in choose(answers, wrong=4, right=0)] == ["1", "2", "3", "4"]


def test_right_answers_follow_and_do_not_depend_on_their_order():
    answers = [answered(str(n), f"scan-{n % 4}", 0.5, right=True) for n in range(20)]
    chosen = choose(answers, wrong=5, right=4)
    assert chosen == choose(answers[::-1], wrong=5, right=4)
    assert {one.example.image_id for one in chosen} == {"scan-0", "scan-1", "scan-2", "scan-3"}


def test_each_image_is_decoded_once_and_made_small(images):
    shown = [answered("1", "scan-1", 0.9), answered("2", "scan-1", 0.8), answered("3", "scan-2", 0.7)]
    made = thumbnails(shown, images)
    assert images.loaded == ["scan-1", "scan-2"]
    assert (made["scan-1"].key, made["scan-1"].width, made["scan-1"].height) == ("p0", 224, 149)
    picture = Image.open(io.BytesIO(base64.b64decode(made["scan-1"].uri.partition(",")[2])))
    assert (picture.format, picture.size) == ("JPEG", (224, 149))


def test_an_image_that_cannot_be_read_is_left_out():
    class Broken:
        def load(self, image_id):
            raise ImageError(f"{image_id}: not an image")

        def digest(self, image_id):
            return ""

    assert thumbnails([answered("1", "scan-1", 0.9)], Broken()) == {}
