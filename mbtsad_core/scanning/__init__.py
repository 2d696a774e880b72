"""The trigger scan: which tokens of the vocabulary, alone or in pairs, turn a suspect's answers on clean texts."""
