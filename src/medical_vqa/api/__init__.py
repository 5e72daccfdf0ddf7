"""The public Python API: ``import medical_vqa as mv``. Nothing below this module is public.

    model = mv.load("shipped")
    answer = model.ask("scan.dcm", "Is there a pleural effusion?", frame=3, window=(40, 400))
    print(answer, answer.confidence, answer.abstained)

    data = mv.prepare("slake-mini")
    run = mv.train("demo", data=data)
    predictions = mv.predict(run)
    print(mv.score(predictions))
    mv.report(predictions, "report.html")

A path is text or any path object; ``~`` means the home folder. What a function returns may be passed to the next one.
The command line calls these functions, so every default is the same there. All that goes wrong is a `MedicalVqaError`
whose message is one sentence: what was expected, what was received, what to do.
"""

from medical_vqa.api.calibration import calibrate as calibrate
from medical_vqa.api.data import audit as audit
from medical_vqa.api.data import convert as convert
from medical_vqa.api.data import prepare as prepare
from medical_vqa.api.full_evaluation import Evaluation as Evaluation
from medical_vqa.api.full_evaluation import evaluate as evaluate
from medical_vqa.api.judging import judge as judge
from medical_vqa.api.models import Exported as Exported
from medical_vqa.api.models import Model as Model
from medical_vqa.api.models import export as export
from medical_vqa.api.models import load as load
from medical_vqa.api.predicting import predict as predict
from medical_vqa.api.predicting import probe as probe
from medical_vqa.api.refereeing import Examination as Examination
from medical_vqa.api.refereeing import referee as referee
from medical_vqa.api.scoring import Report as Report
from medical_vqa.api.scoring import compare as compare
from medical_vqa.api.scoring import report as report
from medical_vqa.api.scoring import score as score
from medical_vqa.api.tables import Leaderboard as Leaderboard
from medical_vqa.api.tables import leaderboard as leaderboard
from medical_vqa.api.training import load_recipe as load_recipe
from medical_vqa.api.training import train as train
