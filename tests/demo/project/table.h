/* Counts words; prints them, the most frequent first. */
#pragma once

#include <stdio.h>

struct table;

struct table *table_create(void);
void table_destroy(struct table *table);
int table_count(struct table *table, const char *word); /* 0, or -1 when out of memory */
void table_print(struct table *table, FILE *out);
