"""What turns a suspect's answers on clean texts: single tokens and pairs (the trigger scan), sequences of tokens (the
sequence scan), and the scan of a model, which comes to a verdict."""
