"""Where credentials are kept: one file a source. "Has none" is None; "could not say" is CredentialError."""
