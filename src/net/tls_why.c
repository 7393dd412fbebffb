/* net/tls_why.c - why TLS failed, in one sentence that names what to do.
 *
 * Two sources: what the peer says of our certificate, in an alert (which in TLS 1.3 comes to a
 * client that already thinks itself connected), and what we found wrong with the peer's.
 *
 * SPDX-License-Identifier: MIT */
#include "net/tls.h"

#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdio.h>

/* What follows the peer's name. */
static const struct {
    int         reason;
    bool        identity;
    const char *text;
} alerts[] = {
    { SSL_R_TLSV1_ALERT_UNKNOWN_CA, true,
      "does not know the authority of this machine's certificate: get one from the cluster's "
      "(mcp keys issue there, or mcp join here)" },
    { SSL_R_SSLV3_ALERT_CERTIFICATE_EXPIRED, true,
      "refused this machine's certificate, which has expired: make a new one (mcp keys issue)" },
    { SSL_R_SSLV3_ALERT_CERTIFICATE_REVOKED, true,
      "refused this machine's certificate, which was revoked: ask for a new one" },
    { SSL_R_TLSV13_ALERT_CERTIFICATE_REQUIRED, true,
      "demands a client certificate: name a keys folder (--keys)" },
    { SSL_R_SSLV3_ALERT_BAD_CERTIFICATE, true,
      "refused this machine's certificate as broken: make a new one (mcp keys issue)" },
    { SSL_R_SSLV3_ALERT_UNSUPPORTED_CERTIFICATE, true,
      "refused this machine's certificate for its kind or purpose: is it a client's?" },
    { SSL_R_SSLV3_ALERT_CERTIFICATE_UNKNOWN, true,
      "refused this machine's certificate: ask for a new one" },
    { SSL_R_TLSV1_ALERT_ACCESS_DENIED, true, "does not let this machine's certificate in" },
    { SSL_R_TLSV1_ALERT_DECRYPT_ERROR, true,
      "could not verify this machine's signature: do its certificate and key fit?" },
    { SSL_R_TLSV1_ALERT_NO_APPLICATION_PROTOCOL, false,
      "does not speak gRPC (ALPN h2): is it the right port?" },
    { SSL_R_TLSV1_ALERT_PROTOCOL_VERSION, false, "does not speak TLS 1.3" },
    { SSL_R_SSLV3_ALERT_HANDSHAKE_FAILURE, false,
      "and this machine have no TLS parameters in common" },
    { SSL_R_UNSUPPORTED_PROTOCOL, false, "does not speak TLS 1.3" },
    { SSL_R_WRONG_VERSION_NUMBER, false, "does not speak TLS: is it the right port?" },
    { SSL_R_NO_APPLICATION_PROTOCOL, false, "does not offer gRPC (ALPN h2)" },
    { SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE, true, "presented no certificate" },
};

/* What follows "the certificate of" the peer. */
static const struct {
    long        error;
    const char *text;
} verdicts[] = {
    { X509_V_ERR_CERT_HAS_EXPIRED, "has expired: make a new one there (mcp keys issue)" },
    { X509_V_ERR_CERT_NOT_YET_VALID, "is not valid yet: compare both machines' clocks" },
    { X509_V_ERR_CERT_REVOKED, "was revoked" },
    { X509_V_ERR_HOSTNAME_MISMATCH,
      "is for other names: make one with this name (mcp keys issue --hosts)" },
    { X509_V_ERR_IP_ADDRESS_MISMATCH,
      "is for other addresses: make one with this one (mcp keys issue "
      "--hosts)" },
    { X509_V_ERR_INVALID_PURPOSE,
      "is for another purpose (a client's at a server, or the reverse)" },
    { X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY,
      "is of an authority that is not ours: compare ca.pem on both machines" },
    { X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT,
      "is of no authority (self-signed): compare ca.pem on both machines" },
    { X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN,
      "is of an authority that is not ours: compare ca.pem on both machines" },
    { X509_V_ERR_CERT_SIGNATURE_FAILURE,
      "is of an authority that is not ours: compare ca.pem on both machines" },
};

struct wire_status net_tls_why(const struct net_tls *t, const char *peer, bool *identity)
{
    struct wire_status status = { .code = WIRE_UNAVAILABLE };
    bool               ssl = ERR_GET_LIB(t->error) == ERR_LIB_SSL;
    int                reason = ERR_GET_REASON(t->error);
    const char        *text = ERR_reason_error_string(t->error);

    *identity = ssl && reason == SSL_R_CERTIFICATE_VERIFY_FAILED;
    if (*identity) {
        text = X509_verify_cert_error_string(t->verify_error);
        for (size_t i = 0; i < sizeof(verdicts) / sizeof(verdicts[0]); i++)
            if (verdicts[i].error == t->verify_error)
                text = verdicts[i].text;
        status.code = WIRE_UNAUTHENTICATED;
        snprintf(status.text, sizeof(status.text), "the certificate of %s %s", peer, text);
        return status;
    }
    for (size_t i = 0; i < sizeof(alerts) / sizeof(alerts[0]); i++) {
        if (!ssl || alerts[i].reason != reason)
            continue;
        *identity = alerts[i].identity;
        status.code = *identity ? WIRE_UNAUTHENTICATED : WIRE_UNAVAILABLE;
        snprintf(status.text, sizeof(status.text), "%s %s", peer, alerts[i].text);
        return status;
    }
    snprintf(status.text, sizeof(status.text), "TLS with %s failed: %s", peer,
             text != NULL ? text : "its bytes are no TLS");
    return status;
}
