"""Ask the shipped model a question; then train, evaluate and report a model of the shipped sample. Needs scan.png."""

import medical_vqa as mv

model = mv.load("shipped")
answer = model.ask("scan.png", "Is there a pleural effusion?")
print(answer, answer.confidence, answer.seen.format)

mv.prepare("slake-mini", root="data")
run = mv.train("demo", data="data/slake-mini", run="runs/demo", overrides={"training.epochs": 3})
predictions = mv.predict("runs/demo", split="validation")
print(mv.score("runs/demo/predictions-validation.jsonl"))
mv.report("runs/demo/predictions-validation.jsonl", "report.html")
