"""One file a kind of task: how its data is read and encoded, what model it takes, and how that is scored."""

KINDS = {  # by name, the file and the class; which data is for which, find.py tells
    "text-classification": ("text", "TextClassification"),
    "text-regression": ("text", "TextRegression"),
    "token-classification": ("tokens", "TokenClassification"),
    "question-answering": ("answers", "QuestionAnswering"),
    "language-modelling": ("language", "LanguageModelling"),
    "image-classification": ("images", "ImageClassification"),
}
