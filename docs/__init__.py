"""The documentation's figures and examples; the pages themselves are beside."""
