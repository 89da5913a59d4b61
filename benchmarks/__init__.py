"""What we time, how we time it, and how it is shown; pages/, tiles/ and rehearse/ come with a checkout alone."""
