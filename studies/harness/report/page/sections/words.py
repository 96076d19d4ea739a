"""Sections 6 and 7: loss on words that are not in the train split, and sampled names."""

from __future__ import annotations

from studies.harness.report.judge.findings import N_SAMPLED, ModelCheck
from studies.harness.report.page.markup import paragraph, table, text

NO_WORDS = "The file of words was not available when this page was written."
NO_MODEL = "The winner's own model was not available"


def unseen_words(check: ModelCheck | None) -> str:
    """Return section 6: the dev loss without words that the model may have memorised."""
    head = "<h2>6. Words not in train</h2>"
    if check is None:
        return head + paragraph(NO_WORDS)
    share = check.n_new / max(1, check.n_dev)
    note = paragraph(
        f"{check.n_new:,} of {check.n_dev:,} dev words ({share:.1%}) are not in the train split. "
        f"The model may have memorised the rest ({1 - share:.1%}). {check.limit}".rstrip()
    )
    if check.dev_loss is None or check.new_loss is None:
        return head + note + paragraph(f"{NO_MODEL}, so its loss on them is unknown.")

    counts = check.rungs[-1]
    rows = [
        ["the winner's own model", check.dev_loss, check.new_loss, check.new_loss - check.dev_loss],
        [
            "Kneser-Ney counts",
            counts.dev_loss,
            counts.new_loss,
            counts.new_loss - counts.dev_loss,
        ],
    ]
    headings = ["model", "all dev words", "dev words not in train", "difference"]
    return head + note + table(headings, rows, texts=(0,))


def samples(check: ModelCheck | None) -> str:
    """Return section 7: names that the winner's model generated."""
    head = "<h2>7. Sampled names</h2>"
    if check is None:
        return head + paragraph(NO_WORDS)
    if check.share_in_train is None:
        return head + paragraph(f"{NO_MODEL}, so no names were sampled.")
    words = "".join(f"<li>{text(word)}</li>" for word in check.words)
    note = (
        f"None of these is in the train split; {check.share_in_train:.1%} of {N_SAMPLED:,} samples "
        "are."
    )
    return head + f'<ul class="words">{words}</ul>' + paragraph(note)
