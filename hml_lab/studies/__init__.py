"""Questions that several runs answer: the audit of the gains, the bag of tricks."""
