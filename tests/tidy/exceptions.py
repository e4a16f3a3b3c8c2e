"""The exceptions from tidy's rules: (file, rule) -> why it is right as it is."""

ALLOWED = {
}
