/* The machine's card. User networking has fixed addresses (QEMU's: 10.0.2.0/24), so no DHCP is
 * needed and the card is up within a millisecond; a bridged card asks its network's DHCP server
 * through systemd-networkd. */
#include "guest.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <net/route.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "supervisor/base/fd.h"
#include "supervisor/base/log.h"
#include "supervisor/base/util.h"

#define MAC_SIZE     6
#define CARD_POLL_MS 20
#define RENAMES_MAX  3 /* of a card that is being used already */
#define CARD_WAIT_MS 20000
#define KEPT_DIR     "/var/lib/kbsup"
#define KEPT	     KEPT_DIR "/network.json"
#define IS_UP	     "/run/kbsup/network" /* since the machine booted */

static bool find_card(char ret[IFNAMSIZ])
{
	DIR *dir = opendir("/sys/class/net");
	struct dirent *entry;

	ret[0] = '\0';
	while (dir && !*ret && (entry = readdir(dir)))
		if (entry->d_name[0] != '.' && strcmp(entry->d_name, "lo") != 0 &&
			strlen(entry->d_name) < IFNAMSIZ)
			memcpy(ret, entry->d_name, strlen(entry->d_name) + 1);
	if (dir)
		closedir(dir);
	return *ret != '\0';
}

/* The first card that is not the loopback. While a machine boots, its driver may still be loading.
 */
static int card_name(char ret[IFNAMSIZ], struct kb_err *err)
{
	static const struct timespec pause = {0, CARD_POLL_MS * 1000000L};

	for (int waited = 0; !find_card(ret); waited += CARD_POLL_MS) {
		if (waited >= CARD_WAIT_MS)
			return kb_err_set(err, KB_ERR_NOTFOUND, "there is no network card");
		nanosleep(&pause, NULL);
	}
	return 0;
}

static int control(
	int sock, unsigned long request, struct ifreq *ifr, const char *what, struct kb_err *err)
{
	if (ioctl(sock, request, ifr) < 0)
		return kb_err_sys(err, errno, "%s: %s", ifr->ifr_name, what);
	return 0;
}

static int set_flags(int sock, const char card[IFNAMSIZ], bool up, struct kb_err *err)
{
	struct ifreq ifr = {0};
	int r;

	memcpy(ifr.ifr_name, card, IFNAMSIZ);
	r = control(sock, SIOCGIFFLAGS, &ifr, "its flags cannot be read", err);
	if (r < 0)
		return r;
	ifr.ifr_flags = (short)(up ? ifr.ifr_flags | IFF_UP : ifr.ifr_flags & ~IFF_UP);
	return control(sock, SIOCSIFFLAGS, &ifr, up ? "it cannot go up" : "it cannot go down", err);
}

/* Down: that also forgets the neighbours and routes of a former life. While a machine boots, udev
 * may give the card another name after it was found. */
static int card_down(int sock, char ret[IFNAMSIZ], struct kb_err *err)
{
	struct kb_err why = {0};
	int r = 0;

	for (int i = 0; i < RENAMES_MAX; i++) {
		r = card_name(ret, &why);
		if (r == 0)
			r = set_flags(sock, ret, false, &why);
		if (r == 0 || why.errnum != ENODEV)
			break;
	}
	if (r < 0 && err)
		*err = why;
	return r;
}

static int set_mac(int sock, const char *card, const char *mac, struct kb_err *err)
{
	struct ifreq ifr = {0};
	unsigned b[MAC_SIZE];

	if (sscanf(mac, "%2x:%2x:%2x:%2x:%2x:%2x", &b[0], &b[1], &b[2], &b[3], &b[4], &b[5]) !=
		MAC_SIZE)
		return kb_err_set(err, KB_ERR_INVALID, "%s is no hardware address", mac);
	memcpy(ifr.ifr_name, card, IFNAMSIZ);
	ifr.ifr_hwaddr.sa_family = ARPHRD_ETHER;
	for (int i = 0; i < MAC_SIZE; i++)
		ifr.ifr_hwaddr.sa_data[i] = (char)b[i];
	return control(sock, SIOCSIFHWADDR, &ifr, "its address cannot be changed", err);
}

static int set_inet(
	int sock, const char *card, unsigned long request, const char *address, struct kb_err *err)
{
	struct ifreq ifr = {0};
	struct sockaddr_in *in = (struct sockaddr_in *)&ifr.ifr_addr;

	memcpy(ifr.ifr_name, card, IFNAMSIZ);
	in->sin_family = AF_INET;
	if (inet_pton(AF_INET, address, &in->sin_addr) != 1)
		return kb_err_set(err, KB_ERR_INVALID, "%s is no IPv4 address", address);
	return control(sock, request, &ifr, "its IPv4 address cannot be set", err);
}

static int set_gateway(int sock, const char *gateway, struct kb_err *err)
{
	struct rtentry route = {.rt_flags = RTF_UP | RTF_GATEWAY};
	struct sockaddr_in *to = (struct sockaddr_in *)&route.rt_gateway;

	route.rt_dst.sa_family = route.rt_genmask.sa_family = AF_INET;
	to->sin_family = AF_INET;
	if (inet_pton(AF_INET, gateway, &to->sin_addr) != 1)
		return kb_err_set(err, KB_ERR_INVALID, "%s is no IPv4 address", gateway);
	if (ioctl(sock, SIOCADDRT, &route) < 0 && errno != EEXIST)
		return kb_err_sys(err, errno, "the default route cannot be set");
	return 0;
}

static int up_fixed(int sock, const char *card, const json_t *request, struct kb_err *err)
{
	const char *address, *netmask, *gateway, *dns;
	char resolv[96];
	int r;

	if ((r = kbm_string(request, "address", &address, err)) < 0 ||
		(r = kbm_string(request, "netmask", &netmask, err)) < 0 ||
		(r = kbm_string(request, "gateway", &gateway, err)) < 0 ||
		(r = kbm_string(request, "dns", &dns, err)) < 0 ||
		(r = set_inet(sock, card, SIOCSIFADDR, address, err)) < 0 ||
		(r = set_inet(sock, card, SIOCSIFNETMASK, netmask, err)) < 0 ||
		(r = set_flags(sock, card, true, err)) < 0 ||
		(r = set_gateway(sock, gateway, err)) < 0)
		return r;
	snprintf(resolv, sizeof(resolv), "nameserver %s\n", dns);
	return kbm_write("/etc/resolv.conf", resolv, 0644, err);
}

static int up_dhcp(const char *card, struct kb_err *err)
{
	static const char *const argv[] = {
		"/usr/bin/systemctl", "--no-block", "restart", "systemd-networkd.service", NULL};
	char text[256];
	int r = kb_mkdirs("/run/systemd/network", 0755, err);

	if (r < 0)
		return r;
	snprintf(text, sizeof(text),
		"[Match]\nName=%s\n[Network]\nDHCP=yes\n[DHCPv4]\nClientIdentifier=mac\n", card);
	r = kbm_write("/run/systemd/network/10-kbsup.network", text, 0644, err);
	return r < 0 ? r : kbm_run(argv, err);
}

static int up(const json_t *request, struct kb_err *err)
{
	KB_CLOSE int sock = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	static const char loopback[IFNAMSIZ] = "lo";
	char card[IFNAMSIZ] = "";
	const char *mac;
	int r;

	if (sock < 0)
		return kb_err_sys(err, errno, "no socket");
	if ((r = kbm_string(request, "mac", &mac, err)) < 0 ||
		(r = card_down(sock, card, err)) < 0 || (r = set_mac(sock, card, mac, err)) < 0 ||
		(r = set_flags(sock, loopback, true, err)) < 0)
		return r;
	if (json_is_true(json_object_get(request, "dhcp")))
		return up_dhcp(card, err);
	return up_fixed(sock, card, request, err);
}

/* What kbm_net_again() needs, and no more: the request holds keys. */
static int keep(const json_t *request, struct kb_err *err)
{
	static const char *const fields[] = {"mac", "address", "netmask", "gateway", "dns", "dhcp"};
	json_t *kept = json_object();
	KB_FREE char *text = NULL;
	int r = kbm_write(IS_UP, "up\n", 0644, err);

	if (r < 0)
		return r;
	for (size_t i = 0; i < KB_ARRAY_LEN(fields); i++)
		json_object_set(kept, fields[i], json_object_get(request, fields[i]));
	text = json_dumps(kept, JSON_COMPACT);
	json_decref(kept);
	if (!text)
		return kb_err_nomem(err);
	r = kb_mkdirs(KEPT_DIR, 0755, err);
	return r < 0 ? r : kbm_write(KEPT, text, 0600, err);
}

int kbm_net_up(const json_t *request, struct kb_err *err)
{
	int r = up(request, err);

	return r < 0 ? r : keep(request, err);
}

void kbm_net_again(void)
{
	json_t *request = access(IS_UP, F_OK) == 0 ? NULL : json_load_file(KEPT, 0, NULL);
	struct kb_err err;

	if (request && up(request, &err) < 0)
		kb_log_warn("the network is not up: %s", err.msg);
	json_decref(request);
}

int kbm_net_forget(struct kb_err *err)
{
	if (unlink(KEPT) < 0 && errno != ENOENT)
		return kb_err_sys(err, errno, KEPT " cannot be removed");
	return 0;
}

int kbm_net_down(struct kb_err *err)
{
	KB_CLOSE int sock = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	char card[IFNAMSIZ] = "";

	return card_down(sock, card, err);
}
