"""explainvad."""
