// A judge of federation: go-spiffe reads our bundles, fetches them in both profiles, and serves
// one of its own making. In workload.go, a judge of the Workload API.
package main

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"sort"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/federation"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

func main() {
	if err := run(os.Args[1], os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(command string, args []string) error {
	if command == "workload" { // address of the socket
		return live(args[0])
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	domain, err := spiffeid.TrustDomainFromString(args[0])
	if err != nil {
		return err
	}
	switch command {
	case "read": // trust domain, bundle file
		bundle, err := spiffebundle.Load(domain, args[1])
		return show(bundle, err)
	case "fetch-web": // trust domain, URL, roots in PEM
		roots := x509.NewCertPool()
		pem, err := os.ReadFile(args[2])
		if err != nil || !roots.AppendCertsFromPEM(pem) {
			return fmt.Errorf("no roots in %s: %v", args[2], err)
		}
		return show(federation.FetchBundle(ctx, domain, args[1], federation.WithWebPKIRoots(roots)))
	case "fetch-spiffe": // trust domain, URL, bundle file, SPIFFE ID of the endpoint
		known, err := spiffebundle.Load(domain, args[2])
		if err != nil {
			return err
		}
		endpoint, err := spiffeid.FromString(args[3])
		if err != nil {
			return err
		}
		return show(federation.FetchBundle(ctx, domain, args[1], federation.WithSPIFFEAuth(known, endpoint)))
	case "jwt": // trust domain, bundle file, audience, token
		bundle, err := spiffebundle.Load(domain, args[1])
		if err != nil {
			return err
		}
		svid, err := jwtsvid.ParseAndValidate(args[3], bundle, []string{args[2]})
		if err != nil {
			return err
		}
		return json.NewEncoder(os.Stdout).Encode(map[string]any{"spiffe_id": svid.ID.String()})
	case "serve": // trust domain; ends with its standard input
		return serve(domain)
	}
	return fmt.Errorf("no command %q", command)
}

func show(bundle *spiffebundle.Bundle, err error) error {
	if err != nil {
		return err
	}
	kids := []string{}
	for kid := range bundle.JWTAuthorities() {
		kids = append(kids, kid)
	}
	sort.Strings(kids)
	wits := []string{}
	for kid := range bundle.WITAuthorities() {
		wits = append(wits, kid)
	}
	sort.Strings(wits)
	sequence, _ := bundle.SequenceNumber()
	hint, _ := bundle.RefreshHint()
	return json.NewEncoder(os.Stdout).Encode(map[string]any{
		"trust_domain":     bundle.TrustDomain().Name(),
		"x509_authorities": len(bundle.X509Authorities()),
		"jwt_authorities":  kids,
		"wit_authorities":  wits,
		"sequence":         sequence,
		"refresh_hint":     int(hint.Seconds()),
	})
}

func serve(domain spiffeid.TrustDomain) error {
	key, root, err := certify(nil, nil, &x509.Certificate{
		Subject: pkix.Name{CommonName: "go root"}, URIs: []*url.URL{domain.ID().URL()},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	})
	if err != nil {
		return err
	}
	endpoint := spiffeid.RequireFromPath(domain, "/bundle/endpoint")
	leafKey, leaf, err := certify(key, root, &x509.Certificate{
		URIs: []*url.URL{endpoint.URL()}, BasicConstraintsValid: true,
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return err
	}
	tokenKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return err
	}
	bundle := spiffebundle.FromX509Authorities(domain, []*x509.Certificate{root})
	if err := bundle.AddJWTAuthority("rsa-1", tokenKey.Public()); err != nil {
		return err
	}
	if err := bundle.AddJWTAuthority("ec-1", leafKey.Public()); err != nil {
		return err
	}
	bundle.SetSequenceNumber(42)
	bundle.SetRefreshHint(90 * time.Second)
	handler, err := federation.NewHandler(domain, bundle)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	svid := &x509svid.SVID{ID: endpoint, Certificates: []*x509.Certificate{leaf}, PrivateKey: leafKey}
	config := tlsconfig.TLSServerConfig(svid)
	config.MinVersion = tls.VersionTLS12
	server := &http.Server{Handler: handler, TLSConfig: config, ReadHeaderTimeout: 10 * time.Second}
	go server.ServeTLS(listener, "", "")
	document, err := bundle.Marshal()
	if err != nil {
		return err
	}
	ready := map[string]any{
		"url":                "https://" + listener.Addr().String() + "/bundle",
		"endpoint_spiffe_id": endpoint.String(),
		"bundle":             string(document),
	}
	if err := json.NewEncoder(os.Stdout).Encode(ready); err != nil {
		return err
	}
	io.Copy(io.Discard, os.Stdin)
	return server.Close()
}

func certify(signer crypto.Signer, above, template *x509.Certificate) (*ecdsa.PrivateKey, *x509.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	if signer == nil {
		signer, above = key, template
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, nil, err
	}
	template.SerialNumber = serial
	template.NotBefore = time.Now().Add(-time.Minute)
	template.NotAfter = time.Now().Add(time.Hour)
	der, err := x509.CreateCertificate(rand.Reader, template, above, key.Public(), signer)
	if err != nil {
		return nil, nil, err
	}
	certificate, err := x509.ParseCertificate(der)
	return key, certificate, err
}
