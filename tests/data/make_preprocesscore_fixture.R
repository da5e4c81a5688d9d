# Writes preprocesscore.json beside this file: what preprocessCore makes of small matrices.
# Run: Rscript make_preprocesscore_fixture.R (needs R and the Bioconductor package).
# Samples are columns in R and rows in the file; NA is null.
Sys.setenv(R_THREADS = "1")
library(preprocessCore)

digits <- function(x) ifelse(is.na(x), "null", sprintf("%.15g", x))
exact <- function(x) { x[] <- as.numeric(sprintf("%.15g", x)); x }
vector_json <- function(x) paste0("[", paste(digits(x), collapse = ", "), "]")
matrix_json <- function(x) paste0("[", paste(apply(x, 2, vector_json), collapse = ",\n   "), "]")

set.seed(20, kind = "Mersenne-Twister", normal.kind = "Inversion", sample.kind = "Rejection")
draw <- function(n_genes, n_samples, places = 6) {
  centre <- rep(seq(7.5, 8.5, length.out = n_samples), each = n_genes)
  exact(round(matrix(rnorm(n_genes * n_samples, centre, 2), n_genes), places))
}
tie <- function(x, sizes) {  # in sample i, runs of sizes[i] neighbouring ranks become equal
  for (i in seq_len(ncol(x))) {
    order_i <- order(x[, i])
    for (start in seq(2, nrow(x) - sizes[i], by = 2 * sizes[i])) {
      run <- order_i[start:(start + sizes[i] - 1)]
      x[run, i] <- x[run[1], i]
    }
  }
  x
}

distinct <- draw(31, 4)
with_na <- distinct
with_na[sample(length(with_na), 20)] <- NA
with_na[1, ] <- NA
tied_na <- tie(draw(30, 4), c(2, 3, 5, 4))
tied_na[sample(length(tied_na), 20)] <- NA
zeros <- draw(30, 3)
zeros[sample(30, 20), 2] <- 0
zeros[sample(30, 9), 3] <- 0
constant <- draw(20, 3)
constant[, 2] <- 3.25
few_values <- distinct
few_values[-c(3, 7), 2] <- NA
tied_ends <- draw(20, 3)
tied_ends[order(tied_ends[, 1])[1:6], 1] <- 1.5
tied_ends[order(-tied_ends[, 2])[1:7], 2] <- 15

cases <- list(
  distinct = distinct,
  two_way_ties = tie(draw(21, 3), c(2, 2, 2)),
  three_way_ties = tie(draw(25, 3), c(3, 3, 3)),
  many_way_ties = tie(draw(35, 3), c(4, 5, 10)),
  ties_at_both_ends = tied_ends,
  zero_block = zeros,
  missing = with_na,
  two_known_values = few_values,
  ties_and_missing = tied_na,
  constant_sample = constant
)
short <- exact(round(sort(rnorm(17, 8, 2)), 6))
targets <- list(
  short = short,
  long = exact(round(sort(rexp(67, 0.4)) + 3, 6)),
  tied = sort(c(short, rep(short[5], 3), rep(short[11], 2)))
)

use_target_json <- function(name, x) {
  sprintf('"%s": %s', name, matrix_json(normalize.quantiles.use.target(x, targets[[name]])))
}
case_json <- function(name) {
  x <- cases[[name]]
  sprintf(
    '  "%s": {\n   "matrix": %s,\n   "target": %s,\n   "normalized": %s,\n   "use_target": {\n   %s}\n  }',
    name, matrix_json(x),
    vector_json(normalize.quantiles.determine.target(x)),
    matrix_json(normalize.quantiles(x)),
    paste(vapply(names(targets), use_target_json, "", x = x), collapse = ",\n   ")
  )
}
here <- dirname(sub("--file=", "", grep("--file=", commandArgs(FALSE), value = TRUE)))
writeLines(c(
  "{",
  sprintf('"made_by": "make_preprocesscore_fixture.R",'),
  sprintf('"r": "%s",', as.character(getRversion())),
  sprintf('"preprocessCore": "%s",', as.character(packageVersion("preprocessCore"))),
  sprintf('"targets": {%s},', paste(
    sprintf('"%s": %s', names(targets), vapply(targets, vector_json, "")), collapse = ",\n"
  )),
  '"cases": {',
  paste(vapply(names(cases), case_json, ""), collapse = ",\n"),
  "}}"
), file.path(here, "preprocesscore.json"))
