/* Private to audit/: page.html, embedded by embed.py; the data goes between the halves. */
#pragma once

extern const unsigned char kb_page_before[], kb_page_after[];
extern const unsigned long kb_page_before_len, kb_page_after_len;
