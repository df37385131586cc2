#include <stdlib.h>

#include "table.h"

int main(void)
{
	struct table *table = table_create();
	char word[256];
	int status = 0;

	if (!table)
		return 1;
	while (status == 0 && scanf("%255s", word) == 1)
		status = table_count(table, word);
	table_print(table, stdout);
	table_destroy(table);
	return status == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
