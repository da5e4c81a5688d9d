# Writes enrichment.json beside this file: what R and DOSE, clusterProfiler's engine, say of small
# sets of terms. Run: Rscript make_enrichment_fixture.R DOSE/R (a checkout of YuLab-SMU/DOSE; needs
# the Bioconductor package qvalue). A case whose q-values R cannot estimate has null.
suppressPackageStartupMessages({library(methods); library(qvalue)})
dose <- commandArgs(TRUE)[1]
setClass("enrichResult", representation(
  result = "data.frame", pvalueCutoff = "numeric", pAdjustMethod = "character",
  qvalueCutoff = "numeric", gene = "character", universe = "character", geneSets = "list",
  organism = "character", keytype = "character", ontology = "character", readable = "logical"
))
for (file in c("build_Anno.R", "enricher_internal.R")) source(file.path(dose, file))

set.seed(5, kind = "Mersenne-Twister", normal.kind = "Inversion", sample.kind = "Rejection")
numbers <- function(x) {
  x <- ifelse(is.na(x), "null", sprintf("%.17g", x))
  paste0("[", paste(x, collapse = ", "), "]")
}
strings <- function(x) if (length(x)) paste0('["', paste(x, collapse = '", "'), '"]') else "[]"

# the tail of the hypergeometric distribution, from certain to 1e-250
tails <- expand.grid(N = c(60, 1500, 18000), share_M = c(0.01, 0.1, 0.4), share_n = c(0.02, 0.3))
tails <- do.call(rbind, lapply(seq_len(nrow(tails)), function(i) {
  N <- tails$N[i]; M <- max(1, round(N * tails$share_M[i])); n <- max(1, round(N * tails$share_n[i]))
  top <- min(M, n)
  k <- unique(round(c(1, n * M / N, quantile(seq_len(top), c(0.3, 0.6)), top)))
  data.frame(k = pmax(1, pmin(k, top)), M = M, N = N, n = n)
}))
tails$p <- with(tails, phyper(k - 1, M, N - M, n, lower.tail = FALSE))

genes <- sprintf("g%03d", 1:400)
terms <- lapply(c(3, 9, 10, 12, 20, 25, 30, 40, 40, 55, 80, 120, 200, 260), function(n) sample(genes[1:320], n))
terms <- c(terms, lapply(1:12, function(i) sample(genes[1:60], 15)))
names(terms) <- sprintf("T%02d", seq_along(terms))

run <- function(query, universe, low, high, chosen = names(terms)) {
  table <- data.frame(
    term = rep(chosen, lengths(terms[chosen])), gene = unlist(terms[chosen], use.names = FALSE)
  )
  data <- build_Anno(table, data.frame(term = chosen, name = chosen))
  found <- suppressMessages(enricher_internal(
    query, 1, universe = universe, minGSSize = low, maxGSSize = high, qvalueCutoff = 1,
    USER_DATA = data
  ))
  r <- if (is.null(found)) NULL else found@result
  split_ratio <- function(x, i) as.integer(vapply(strsplit(as.character(x), "/"), `[`, "", i))
  sprintf(
    '{"query": %s,\n "universe": %s,\n "terms": %s,\n "min_size": %d, "max_size": %d,\n "tested": %s,\n "k": %s, "n": %s, "M": %s, "N": %s,\n "p": %s,\n "p_adjusted": %s,\n "q": %s}',
    strings(query), strings(universe), strings(chosen), low, high, strings(r$ID),
    numbers(r$Count), numbers(split_ratio(r$GeneRatio, 2)),
    numbers(split_ratio(r$BgRatio, 1)), numbers(split_ratio(r$BgRatio, 2)),
    numbers(r$pvalue), numbers(r$p.adjust),
    numbers(if (is.null(r)) numeric(0) else rep_len(r$qvalue, nrow(r)))
  )
}
measured <- genes[c(1:300, 330:400)]
planted <- unique(c(sample(terms$T07, 18), sample(measured, 40)))
planted <- intersect(planted, measured)
cases <- list(
  usual = run(planted, measured, 10, 500),
  narrow = run(planted, measured, 20, 100),
  every_gene = run(genes[1:300], measured, 10, 500),
  one_term = run(planted, measured, 10, 200, c("T07", "T14")),
  all_significant = run(genes[1:60], measured, 10, 20, sprintf("T%02d", 14:26)),
  none_in_size = run(planted, measured, 300, 500),
  unannotated_query = run(c(planted, genes[331:370]), measured, 10, 500)
)
here <- dirname(sub("--file=", "", grep("--file=", commandArgs(FALSE), value = TRUE)))
writeLines(c(
  "{",
  '"made_by": "make_enrichment_fixture.R",',
  sprintf('"r": "%s", "qvalue": "%s", "dose": "06e71b1",', getRversion(), packageVersion("qvalue")),
  sprintf('"tails": {%s},', paste(sprintf('"%s": %s', names(tails), vapply(tails, numbers, "")), collapse = ",\n")),
  sprintf('"terms": {%s},', paste(sprintf('"%s": %s', names(terms), vapply(terms, strings, "")), collapse = ",\n")),
  '"cases": {',
  paste(sprintf('"%s": %s', names(cases), unlist(cases)), collapse = ",\n"),
  "}}"
), file.path(here, "enrichment.json"))
