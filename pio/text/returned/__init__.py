"""Answers that come back in a conversation: what their messages say, and which tokens they were."""
