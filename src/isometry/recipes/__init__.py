"""One file per paper: a card that says what will be checked, and a run that only composes parts."""
