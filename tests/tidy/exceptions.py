"""The exceptions from tidy's rules: (file, rule) -> why it is right as it is."""

ALLOWED = {
    ("tests/graph/deployment_random_test.cc", "file-length"): "one world, of whose parts nobody else makes use",
    ("tests/graph/sampling_params_test.cc", "function-length"): "a table of cases, one line each",
}
