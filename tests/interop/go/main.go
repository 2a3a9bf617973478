// Judge verifies what Accredit issues with Go's standard library alone.
//
//	judge chain ROOT LEAF CHAIN            verify a chain, print its URI SANs
//	judge whoami ROOT LEAF CHAIN KEY URL   call the issuer with a client certificate
//	judge bundle ROOT BUNDLE               read a bundle document, compare its root
package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"
)

func main() {
	commands := map[string]func([]string) error{"chain": chain, "whoami": whoami, "bundle": bundle}
	if err := commands[os.Args[1]](os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func chain(files []string) error {
	leaf, err := certificate(files[1])
	if err != nil {
		return err
	}
	roots, intermediates := pool(files[0]), pool(files[2])
	_, err = leaf.Verify(x509.VerifyOptions{
		Roots:         roots,
		Intermediates: intermediates,
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return err
	}
	uris := []string{}
	for _, uri := range leaf.URIs {
		uris = append(uris, uri.String())
	}
	return json.NewEncoder(os.Stdout).Encode(map[string][]string{"uris": uris})
}

func whoami(files []string) error {
	leaf, chain := read(files[1]), read(files[2])
	identity, err := tls.X509KeyPair(append(leaf, chain...), read(files[3]))
	if err != nil {
		return err
	}
	client := http.Client{
		Timeout: 10 * time.Second,
		Transport: &http.Transport{TLSClientConfig: &tls.Config{
			RootCAs:      pool(files[0]),
			Certificates: []tls.Certificate{identity},
			ServerName:   "issuer.example.org",
		}},
	}
	answer, err := client.Get(files[4] + "/v1/whoami")
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("status %s", answer.Status)
	}
	_, err = io.Copy(os.Stdout, answer.Body)
	return err
}

func bundle(files []string) error {
	var document struct {
		Keys []struct {
			Use string   `json:"use"`
			Kid string   `json:"kid"`
			X5c []string `json:"x5c"`
		} `json:"keys"`
		Sequence uint64 `json:"spiffe_sequence"`
	}
	if err := json.Unmarshal(read(files[1]), &document); err != nil {
		return err
	}
	root, err := certificate(files[0])
	if err != nil {
		return err
	}
	found, jwtKeys := 0, 0
	for _, key := range document.Keys {
		switch key.Use {
		case "x509-svid":
			der, err := base64.StdEncoding.DecodeString(key.X5c[0])
			if err != nil {
				return err
			}
			if bytes.Equal(der, root.Raw) {
				found++
			}
		case "jwt-svid":
			if key.Kid != "" {
				jwtKeys++
			}
		}
	}
	if found != 1 || jwtKeys == 0 {
		return fmt.Errorf("root found %d times, %d JWT keys", found, jwtKeys)
	}
	return nil
}

func certificate(file string) (*x509.Certificate, error) {
	block, _ := pem.Decode(read(file))
	if block == nil {
		return nil, fmt.Errorf("%s is not PEM", file)
	}
	return x509.ParseCertificate(block.Bytes)
}

func pool(file string) *x509.CertPool {
	certificates := x509.NewCertPool()
	certificates.AppendCertsFromPEM(read(file))
	return certificates
}

func read(file string) []byte {
	data, err := os.ReadFile(file)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	return data
}
