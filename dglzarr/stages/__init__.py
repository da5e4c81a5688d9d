"""One file per stage of the pipeline; stages know each other only through stores."""
