"""``python -m medical_vqa``, which is also what ``accelerate launch -m medical_vqa`` runs."""

from medical_vqa.cli import main

if __name__ == "__main__":
    main()
