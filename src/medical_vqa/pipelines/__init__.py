"""One module per stage; stages exchange files, and only these modules call more than one stage."""
