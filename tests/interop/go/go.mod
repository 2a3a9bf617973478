module accredit.test/judge

go 1.21
